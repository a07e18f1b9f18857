"""Packed rows never see each other: logits and gradients are those of each row alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.attention import NAME, packed_attention, set_attention, use_attention
from posttrain.attention.kernels import (
    BACK_ENDS,
    Attend,
    Call,
    by_parts,
    choose,
    example,
    flex,
    padded,
    unfit,
    varlen,
    wrong,
)
from posttrain.errors import ModelError
from posttrain.packing import Group, forward_inputs, pack

KINDS = {
    "llama": {},
    "llama without shared heads": {"num_key_value_heads": 4},
    "llama with one head of keys": {"num_key_value_heads": 1},
    "mistral with a window": {"model_type": "mistral", "sliding_window": 3},
    "mistral without one": {"model_type": "mistral", "sliding_window": None},
}
SHARED = [10, 11, 12, 13]
GROUPS = [
    Group(SHARED, [([20, 21, 22, 23, 24, 1], [20, 21, 22, 23, 24, 1]), ([25, 1], [25, 1])]),
    Group([], [([30, 31, 32, 33], [-100, 31, -100, 33])]),
    Group([40], [([41, 1], [41, 1]), ([42, 43, 1], [42, 43, 1]), ([44], [44])]),
]
ROWS = [  # every sequence of GROUPS alone, with the positions of its trained tokens
    ([*SHARED, 20, 21, 22, 23, 24, 1], range(4, 10)),
    ([*SHARED, 25, 1], range(4, 6)),
    ([30, 31, 32, 33], (1, 3)),
    ([40, 41, 1], (1, 2)),
    ([40, 42, 43, 1], (1, 2, 3)),
    ([40, 44], (1,)),
]


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, checkpoint: Callable[..., str]) -> str:
    return checkpoint(**KINDS[request.param])


def packed_logps(model: Any) -> torch.Tensor:
    batch = pack(GROUPS)
    logits = model(**forward_inputs(batch), logits_to_keep=batch["keep"], use_cache=False).logits[0]
    return logits.log_softmax(-1).gather(1, batch["targets"][:, None])[:, 0]


def plain_logps(model: Any) -> torch.Tensor:
    out = []
    for ids, trained in ROWS:
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        out += [logps[i - 1, ids[i]] for i in trained]
    return torch.stack(out)


def test_log_probs_and_gradients_are_those_of_each_row_alone(folder: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    packed = AutoModelForCausalLM.from_pretrained(folder)
    set_attention(packed)
    expected, got = plain_logps(plain), packed_logps(packed)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, len(expected))
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    for (name, ours), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=2e-5, msg=name)


def test_all_logits_of_a_packed_row(folder: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    packed = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=NAME)
    rows = [ids for ids, _ in ROWS]
    batch = pack([Group([], [(ids, ids)]) for ids in rows])
    with torch.no_grad():
        logits = packed(**forward_inputs(batch)).logits[0]
        alone = torch.cat([plain(torch.tensor([ids])).logits[0] for ids in rows])
    torch.testing.assert_close(logits, alone, rtol=1e-5, atol=2e-5)


def test_the_window_matters_here(checkpoint: Callable[..., str]) -> None:
    """Else the sliding-window case above would prove nothing."""
    near = AutoModelForCausalLM.from_pretrained(checkpoint("mistral", sliding_window=3))
    far = AutoModelForCausalLM.from_pretrained(checkpoint("mistral", sliding_window=None))
    far.load_state_dict(near.state_dict())
    for model in (near, far):
        set_attention(model)
    with torch.no_grad():
        assert (packed_logps(near) - packed_logps(far)).abs().max() > 1e-2


def test_other_rows_change_nothing(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), attn_implementation=NAME)
    tails = []
    for other in ([50, 51, 52], [60, 61, 62]):
        batch = pack([Group([], [(other, other)]), Group([], [([7, 8, 9], [7, 8, 9])])])
        with torch.no_grad():
            tails.append(model(**forward_inputs(batch)).logits[0, 3:])
    assert torch.equal(*tails)


def test_attention_is_put_back(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), attn_implementation=NAME)
    with pytest.raises(KeyError), use_attention(model, "sdpa"):
        assert model.config._attn_implementation == "sdpa"
        raise KeyError
    assert model.config._attn_implementation == NAME


def test_a_batch_that_is_not_packed_is_refused(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), attn_implementation=NAME)
    with pytest.raises(ModelError, match="without `packed_rows`; use the posttrain collators"):
        model(torch.tensor([[1, 2]]))


def test_architectures_that_cannot_be_packed_are_refused(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("gemma2", head_dim=8))
    with pytest.raises(ModelError, match="Gemma2ForCausalLM does not support scaled-dot-product"):
        set_attention(model)
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    model.config.attn_logit_softcapping = 50.0
    with pytest.raises(ModelError, match=r"attn_logit_softcapping=50.0"):
        set_attention(model)


# --- back ends ------------------------------------------------------------------------------------


def by_definition(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_q: torch.Tensor,
    cu_k: torch.Tensor,
    longest_q: int,
    longest_k: int,
    left: int,
    call: Call,
    aligned: bool = True,
) -> torch.Tensor:
    """What a kernel for sequences one after another promises, in plain PyTorch.

    `aligned=False`: the causal mask starts at the first key, as FlashAttention's did before 2.1.
    """
    assert longest_q == int(cu_q.diff().max())
    assert longest_k == int(cu_k.diff().max())
    outs = []
    for i in range(len(cu_q) - 1):
        a, b = (x[cu[i] : cu[i + 1]] for x, cu in ((q, cu_q), (k, cu_k)))
        c = v[cu_k[i] : cu_k[i + 1]]
        b, c = (x.repeat_interleave(a.shape[1] // x.shape[1], 1) for x in (b, c))
        offset = len(b) - len(a) if aligned else 0
        rows = torch.arange(len(a))[:, None] + offset
        hidden = torch.arange(len(b)) > rows
        if left >= 0:
            hidden |= torch.arange(len(b)) < rows - left
        scores = torch.einsum("qhd,khd->hqk", a, b) * (call.scale or a.shape[-1] ** -0.5)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        outs.append(torch.einsum("hqk,khd->qhd", weights, c))
    return torch.cat(outs)


CPU = torch.device("cpu")
HEADS = {"as many keys": (4, 4, 8, 8), "shared keys": (4, 2, 8, 8), "one key": (4, 1, 8, 8)}


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("windowed", [False, True], ids=["whole", "window"])
@pytest.mark.parametrize("kernel", [by_parts, varlen(by_definition)], ids=["parts", "varlen"])
def test_a_back_end_gives_outputs_and_gradients_of_padded_rows(
    kernel: Attend, windowed: bool, heads: tuple[int, int, int, int]
) -> None:
    assert wrong(kernel, CPU, torch.float32, heads, windowed) == ""


@pytest.mark.parametrize("windowed", [False, True], ids=["whole", "window"])
def test_flex_gives_the_outputs_of_padded_rows(windowed: bool) -> None:
    """It has no backward pass on a CPU; on a GPU `choose` compares its gradients too."""
    call = example(CPU, windowed)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, len(call.back), 16) for heads in (4, 2, 2))
    with torch.no_grad():
        torch.testing.assert_close(flex()(q, k, v, call), padded(q, k, v, call))


@pytest.mark.parametrize("name", ["flash_attention_3", "flash_attention_2", "torch_varlen", "flex"])
@pytest.mark.parametrize("windowed", [False, True], ids=["whole", "window"])
def test_a_back_end_of_gpus(name: str, windowed: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    device, dtype = torch.device("cuda"), torch.bfloat16
    reason = unfit(name, device, dtype, False)
    if reason:
        pytest.skip(f"{name}: {reason}")
    assert wrong(BACK_ENDS[name](), device, dtype, (8, 2, 64, 64), windowed) == ""


def test_a_wrong_kernel_is_found_out() -> None:
    """Aligned to the first key, it hides most of the prompt from each answer."""
    kernel = varlen(partial(by_definition, aligned=False))
    assert "on a small example" in wrong(kernel, CPU, torch.float32, (4, 2, 8, 8), False)


def test_the_example_is_laid_out_as_batches_are() -> None:
    batch = pack(
        [Group([9] * 70, [([1] * 9, [1] * 9), ([2] * 40, [2] * 40)])]
        + [Group([], [([3] * n, [3] * n)]) for n in (33, 1)]
    )
    call = example(CPU)
    assert torch.equal(batch["packed_rows"], call.rows)
    assert torch.equal(batch["packed_back"], call.back)
    assert tuple(batch["packed_parts"]) == call.parts


def test_the_choice_on_a_cpu_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    choose.cache_clear()
    caplog.set_level("INFO", logger="posttrain.attention.kernels")
    for _ in range(2):
        chosen = choose(CPU, torch.float32, (4, 2, 8, 8), False, False)
    assert chosen is by_parts
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "attention: parts on cpu in torch.float32"
    ]
    assert "torch_varlen: not for cpu" in caplog.text


def test_a_batch_without_parts_goes_through_padded_rows(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), attn_implementation=NAME)
    batch = pack(GROUPS)
    inputs = forward_inputs(batch)
    with torch.no_grad():
        whole = model(**inputs).logits
        del inputs["packed_parts"]
        torch.testing.assert_close(model(**inputs).logits, whole, rtol=1e-5, atol=1e-5)


def test_what_attention_cannot_reproduce_is_refused() -> None:
    call = example(CPU)
    q = torch.randn(1, 2, len(call.back), 8)
    with pytest.raises(ModelError, match="asks attention for 's_aux'"):
        packed_attention(torch.nn.Identity(), q, q, q, None, call.rows, call.back, s_aux=q)
