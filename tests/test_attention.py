"""Packed rows never see each other: logits and gradients are those of each row alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.attention import NAME, set_attention, use_attention
from posttrain.errors import ModelError
from posttrain.packing import Group, pack

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
    names = ("input_ids", "position_ids", "packed_rows", "packed_back")
    inputs = {name: batch[name] for name in names}
    logits = model(**inputs, logits_to_keep=batch["keep"], use_cache=False).logits[0]
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
    names = ("input_ids", "position_ids", "packed_rows", "packed_back")
    with torch.no_grad():
        logits = packed(**{name: batch[name] for name in names}).logits[0]
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
    names = ("input_ids", "position_ids", "packed_rows", "packed_back")
    tails = []
    for other in ([50, 51, 52], [60, 61, 62]):
        batch = pack([Group([], [(other, other)]), Group([], [([7, 8, 9], [7, 8, 9])])])
        with torch.no_grad():
            tails.append(model(**{name: batch[name] for name in names}).logits[0, 3:])
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
