"""The chunked head in a model: the numbers of its whole logits, and never whole logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from posttrain import head as module
from posttrain.attention import set_attention
from posttrain.head import (
    PROVEN,
    declared,
    plain_layer,
    score,
    score_with_collision,
    unwrapped,
)
from posttrain.head.chunks import CHUNK, whole_answer
from posttrain.packing import Group, forward_inputs, pack

K, V = 7, 320
ROWS = [
    Group([10, 11, 12], [([20, 21, 1], [20, 21, 1]), ([22, 1], [22, 1])]),
    Group([], [([30, 31, 32, 33], [-100, 31, -100, 33])]),
]
WEIGHTS = torch.linspace(-1, 1, K)
CLOSE = {"rtol": 1e-6, "atol": 3e-6}  # two orders of adding up, in fp32


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three, three and one positions."""
    monkeypatch.setitem(CHUNK, "cpu", 3 * V)
    module.tell.cache_clear()


@pytest.fixture
def packed(checkpoint: Callable[..., str]) -> Callable[..., Any]:
    def load(model_type: str = "llama", dtype: Any = torch.float32, **fields: Any) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint(model_type, **fields), dtype=dtype)
        assert model.config.vocab_size == V
        set_attention(model)
        return model

    return load


class Shapes(TorchDispatchMode):
    """Notes the shapes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.seen.add(tuple(tensor.shape))
        return out

    @property
    def whole(self) -> bool:
        """Whether the logits of all trained positions were among them."""
        return any(V in shape and torch.Size(shape).numel() == K * V for shape in self.seen)


def batch_of(rows: Any = ROWS) -> tuple[dict[str, Any], Any, Any]:
    batch = pack(rows)
    return forward_inputs(batch), batch["keep"], batch["targets"]


def by_the_book(model: Any, temperature: float = 1.0, z_loss: float = 0.0) -> torch.Tensor:
    tensors, keep, targets = batch_of()
    logits = model(**tensors, logits_to_keep=keep, use_cache=False).logits[0]
    return whole_answer(logits.float() / temperature, targets, z_loss).logps


def same_as_by_the_book(model: Any, reason: str = "", **options: float) -> None:
    """`score` equals the plain way in values and gradients; it was, or was not, in chunks."""
    plain = copy.deepcopy(unwrapped(model))
    parameters = dict(unwrapped(model).named_parameters())
    for announced in (WEIGHTS, None):
        model.zero_grad(), plain.zero_grad()
        with Shapes() as shapes:
            got = score(model, *batch_of(), weights=announced, **options)
            (got * WEIGHTS).sum().backward()
        expected = by_the_book(plain, **options)
        (expected * WEIGHTS).sum().backward()
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, **CLOSE)
        same_gradients(parameters, plain)
        head = unwrapped(model).get_output_embeddings()
        assert shapes.whole == (PROVEN.get(head) != "")
        assert shapes.whole == (reason != "")


def same_gradients(parameters: dict[str, Any], plain: Any) -> None:
    reached = 0
    for name, theirs in plain.named_parameters():
        mine = parameters[name]
        if theirs.grad is None:
            assert mine.grad is None, name
            continue
        gap, size = (mine.grad - theirs.grad).norm(), theirs.grad.norm()
        # layers below make two orders of adding up differ by more
        assert gap <= (1e-6 if "lm_head" in name else 3e-6) * max(1.0, size), name
        reached += int(theirs.grad.abs().sum() > 0)
    assert reached


def test_whole_logits_are_noticed(packed: Callable[..., Any]) -> None:
    with Shapes() as shapes:
        by_the_book(packed())
    assert shapes.whole


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_a_llama(packed: Callable[..., Any], tied: bool, temperature: float, z_loss: float) -> None:
    model = packed(tie_word_embeddings=tied)
    same_as_by_the_book(model, temperature=temperature, z_loss=z_loss)


GEMMA = {"final_logit_softcapping": 5.0, "head_dim": 8}


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 4.0}),
        ("gemma3_text", GEMMA),
    ],
)
def test_logits_that_are_scaled_or_capped(
    packed: Callable[..., Any], model_type: str, fields: dict[str, Any]
) -> None:
    model = packed(model_type, **fields)
    assert not declared(model.config).plain
    same_as_by_the_book(model, temperature=1.5, z_loss=0.01)


def test_collision_through_a_model(packed: Callable[..., Any]) -> None:
    model = packed("gemma3_text", **GEMMA)
    tensors, keep, targets = batch_of()
    with Shapes() as shapes:
        found = score_with_collision(model, tensors, keep, targets)
    assert not shapes.whole
    logits = model(**tensors, logits_to_keep=keep, use_cache=False).logits[0]
    expected = logits.float().softmax(-1).square().sum(-1).log().detach()
    assert found.collision is not None
    torch.testing.assert_close(found.collision, expected, **CLOSE)
    torch.testing.assert_close(found.logps, score(model, tensors, keep, targets))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16 weights"])
def test_bfloat16_is_reduced_in_fp32(packed: Callable[..., Any], autocast: bool) -> None:
    """Over hundreds of chunks; a sum in bfloat16 would soon stop growing."""
    model = packed(dtype=torch.float32 if autocast else torch.bfloat16, tie_word_embeddings=False)
    plain = packed(tie_word_embeddings=False)
    for each in (model, plain):
        set_attention(each)
    ids = list(range(40)) * 50
    batch = batch_of([Group([5], [(ids, ids)])])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = score(model, *batch, weights=torch.ones(2000))
    assert got.dtype == torch.float32
    got.sum().backward()
    expected = score(plain, *batch, weights=torch.ones(2000))
    expected.sum().backward()
    assert (got - expected).abs().mean() < 0.05
    mine, theirs = model.lm_head.weight.grad, plain.lm_head.weight.grad
    assert mine.dtype == model.lm_head.weight.dtype
    assert (mine.float() - theirs).norm() < 0.03 * theirs.norm()


# --- adapters -------------------------------------------------------------------------------------


def adapted(model: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, **options))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.filterwarnings("ignore:.*tied:UserWarning")
def test_adapters_on_the_head(packed: Callable[..., Any], tied: bool, rslora: bool) -> None:
    targets = ["q_proj", "lm_head"]
    base = packed(tie_word_embeddings=tied)
    model = adapted(base, target_modules=targets, use_rslora=rslora)
    assert type(model.get_output_embeddings()) is not nn.Linear
    same_as_by_the_book(model, z_loss=0.01)
    with model.disable_adapter():  # DPO's reference
        bare = score(model, *batch_of())
    torch.testing.assert_close(bare, by_the_book(packed(tie_word_embeddings=tied)), **CLOSE)
    model.merge_adapter()
    torch.testing.assert_close(score(model, *batch_of()), by_the_book(model), **CLOSE)
    assert PROVEN[model.get_output_embeddings()] == ""


def test_adapters_elsewhere(packed: Callable[..., Any]) -> None:
    model = adapted(packed("gemma3_text", **GEMMA), target_modules="all-linear")
    assert type(model.get_output_embeddings()) is nn.Linear
    same_as_by_the_book(model)


def test_two_adapters_on_the_head_and_dropout(packed: Callable[..., Any]) -> None:
    from peft import LoraConfig

    model = adapted(packed(), target_modules=["lm_head"])
    second = LoraConfig(r=3, target_modules=["lm_head"], init_lora_weights=False, lora_dropout=0.5)
    model.add_adapter("second", second)
    model.base_model.set_adapter(["default", "second"])
    same_as_by_the_book(model.eval())
    model.train()
    torch.manual_seed(3)
    got = score(model, *batch_of())
    torch.manual_seed(3)
    torch.testing.assert_close(got, by_the_book(model), **CLOSE)


def test_a_head_that_is_trained_whole_beside_adapters(packed: Callable[..., Any]) -> None:
    base = packed(tie_word_embeddings=False)
    model = adapted(base, target_modules=["q_proj"], modules_to_save=["lm_head"])
    same_as_by_the_book(model)
    with torch.no_grad():
        model.get_output_embeddings().modules_to_save["default"].weight.mul_(2)
    same_as_by_the_book(model)
    with model.disable_adapter():
        bare = score(model, *batch_of())
    torch.testing.assert_close(bare, by_the_book(packed(tie_word_embeddings=False)), **CLOSE)


def test_other_adapters_on_the_head_are_left_to_the_model(
    packed: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = adapted(packed(tie_word_embeddings=False), target_modules=["lm_head"], use_dora=True)
    same_as_by_the_book(model, "not a plain linear layer")
    assert "the head is a Linear of peft.tuners.lora" in caplog.text


# --- models that the head must not be trusted with ------------------------------------------------


class Doubled(LlamaForCausalLM):
    """Does something to its logits that no configuration tells."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out


class Direct(LlamaForCausalLM):
    """Multiplies with the weights of its head itself."""

    def forward(self, input_ids: Any, logits_to_keep: Any, **kwargs: Any) -> Any:
        out = self.model(input_ids, **kwargs)
        out["logits"] = out.last_hidden_state[:, logits_to_keep] @ self.lm_head.weight.t()
        return out


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Doubled, "does something to its logits that its configuration does not tell"),
        (Direct, "called its head 0 times"),
    ],
)
def test_what_a_model_does_by_itself_is_noticed(
    packed: Callable[..., Any], caplog: pytest.LogCaptureFixture, kind: Any, reason: str
) -> None:
    model = packed()
    model.__class__ = kind
    same_as_by_the_book(model, reason)
    (record,) = caplog.records  # once, however many batches
    assert "made at once (the model" in record.getMessage()
    assert reason in record.getMessage()


def test_a_vocabulary_that_the_model_cuts(packed: Callable[..., Any]) -> None:
    model = packed()
    model.config.unpadded_vocab_size = V - 5  # then a log-prob would be of too many tokens
    same_as_by_the_book(model, f"the head has {V} rows for {V - 5} tokens")


def test_the_head_is_itself_again_afterwards(packed: Callable[..., Any]) -> None:
    model = packed()
    score(model, *batch_of())
    assert "forward" not in vars(model.lm_head)
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        score(model, {"no_such_input": 1}, 1, torch.tensor([1]))
    assert "forward" not in vars(model.lm_head)
    model.lm_head.forward = model.lm_head.forward  # someone else's
    assert plain_layer(model.lm_head) is None


# --- wrappers -------------------------------------------------------------------------------------


class Engine(nn.Module):
    """Answers for the model inside, as DeepSpeed's engine does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def test_wrappers_that_answer_for_the_model(packed: Callable[..., Any]) -> None:
    model = packed()
    wrapped = Engine(Engine(model))
    assert wrapped.get_output_embeddings() is model.lm_head
    assert unwrapped(wrapped) is model
    assert unwrapped(torch.compile(wrapped, backend="eager")) is model
    same_as_by_the_book(wrapped)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_ddp_reduces_the_gradients(packed: Callable[..., Any], one_process: None) -> None:
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(packed())
    same_as_by_the_book(wrapped)  # twice: its buckets are laid out anew after a backward pass


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(packed: Callable[..., Any], reentrant: bool, lora: bool) -> None:
    model = packed(tie_word_embeddings=not lora)
    if lora:
        model = adapted(model, target_modules=["q_proj", "lm_head"])
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    same_as_by_the_book(model.train())


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_a_compiled_model(packed: Callable[..., Any], model_type: str) -> None:
    """Whole logits before and after: what was compiled for them is not run for log-probs."""
    model = packed(model_type, **(GEMMA if model_type == "gemma3_text" else {}))
    compiled: Any = torch.compile(model, backend="aot_eager")
    tensors, keep, _ = batch_of()
    before = compiled(**tensors, logits_to_keep=keep, use_cache=False).logits
    same_as_by_the_book(compiled)
    after = compiled(**tensors, logits_to_keep=keep, use_cache=False).logits
    assert torch.equal(before, after)
    assert after.shape == (1, K, V)
    same_as_by_the_book(compiled, temperature=0.7)
