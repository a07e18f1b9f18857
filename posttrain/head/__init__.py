"""Log-probs of the trained tokens, without the logits of all of them ever standing in memory.

The model's own forward pass runs, with all of its wrappers (adapters, DDP, DeepSpeed, FSDP); only
the head inside answers log-probs in place of logits. How it computes them stands in `chunks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from posttrain.head.chunks import Answer, Weights, chunked_answer, whole_answer
from posttrain.head.precision import wide
from posttrain.head.softmax import Form

logger = logging.getLogger(__name__)
PROVEN: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # head -> why not, or ""


def score(
    model: nn.Module,
    inputs: Mapping[str, Any],
    keep: torch.Tensor | int,
    targets: torch.Tensor,
    temperature: float = 1.0,
    weights: Weights = None,
    z_loss: float = 0.0,
) -> torch.Tensor:
    """`[K]` log-probs, in fp32 or wider, of `targets` at the positions `keep` of one packed row.

    Where the head cannot answer them (something unknown is done to the logits, or the head is of an
    unknown kind), the logits are made whole, as the model makes them.

    Args:
        model: a causal language model, wrapped or not.
        inputs: what it reads beside `logits_to_keep`.
        temperature: the logits are divided by it.
        weights: `[K]` the gradient of the loss at each log-prob up to one factor, if known already,
            or how it will be known.
        z_loss: `z_loss * lse^2` is taken off each log-prob (see `Form`).

    Raises:
        RuntimeError: in the backward pass, if `weights` announced another gradient.
    """
    ask = Ask(targets, weights, Form(temperature=temperature, z_loss=z_loss))
    return answer(model, inputs, keep, ask).logps


def score_with_collision(
    model: nn.Module,
    inputs: Mapping[str, Any],
    keep: torch.Tensor,
    targets: torch.Tensor,
    weights: Weights = None,
) -> Answer:
    """`score`, and log sum_v p(v)^2 of each position, which has no gradient."""
    return answer(model, inputs, keep, Ask(targets, weights, Form(), collision=True))


@dataclass(frozen=True)
class Ask:
    """What is asked of a head for `[K]` targets; see `score`."""

    targets: torch.Tensor
    weights: Weights
    form: Form
    collision: bool = False


def answer(
    model: nn.Module, inputs: Mapping[str, Any], keep: torch.Tensor | int, ask: Ask
) -> Answer:
    """What is asked, chunked where that can be done."""
    bare = unwrapped(model)
    head, config = bare.get_output_embeddings(), bare.config.get_text_config()
    form = replace(declared(config), temperature=ask.form.temperature, z_loss=ask.form.z_loss)
    why = unfit(head, config, form) or PROVEN.get(head, "")
    if not why:
        with answering(head, replace(ask, form=form)) as made:
            out = model(**inputs, logits_to_keep=keep, use_cache=False).logits
        if head not in PROVEN or len(made) != 1:
            PROVEN[head] = why_not(out, made, form)
        if not PROVEN[head]:
            # what came through the model's wrappers, for they watch it; where the model did
            # something to it as if it were logits, what the head had answered
            return made[0]._replace(logps=out[0, :, 0]) if form.plain else made[0]
    tell(why or PROVEN[head])
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits[0]
    logits, temperature = wide(logits), ask.form.temperature
    logits = logits / temperature if temperature != 1 else logits
    return whole_answer(logits, ask.targets, ask.form.z_loss, ask.collision)


@lru_cache
def tell(why: str) -> None:
    """Say once that logits are made whole, and why."""
    logger.warning("head: the logits of all trained positions are made at once (%s)", why)


# --- what stands in a model -----------------------------------------------------------------------


def unwrapped(model: Any) -> Any:
    """The model inside DDP, DeepSpeed's engine and torch.compile, in any order.

    Wrappers may answer for the model's methods, so that only what they hold tells them apart.
    """
    while True:
        for name in ("_orig_mod", "module"):
            inner = getattr(model, name, None)
            if isinstance(inner, nn.Module):
                model = inner
                break
        else:
            return model


def declared(config: Any) -> Form:
    """What a model's configuration says is done to its logits."""
    scale = getattr(config, "logit_scale", None)
    for name in ("lm_head_multiplier", "output_multiplier"):
        scale = getattr(config, name, None) if scale is None else scale
    if scale is None and getattr(config, "logits_scaling", None) is not None:
        divisor = config.logits_scaling
        scale = divisor if config.model_type == "hyperclovax" else 1 / divisor
    return Form(1.0 if scale is None else scale, getattr(config, "final_logit_softcapping", None))


def unfit(head: nn.Module | None, config: Any, form: Form) -> str:
    """Why a head cannot be chunked, or ""."""
    if head is None:
        return "the model does not say which of its layers is the head"
    linear = plain_layer(head)
    if linear is None:
        kind = type(head)
        return f"the head is a {kind.__name__} of {kind.__module__}, not a plain linear layer"
    real = getattr(config, "unpadded_vocab_size", None) or config.vocab_size
    if linear.out_features != real:
        return f"the head has {linear.out_features} rows for {real} tokens"
    if hasattr(linear.weight, "ds_id") and not form.plain:
        return "its logits are scaled or capped, under ZeRO-3"
    if hasattr(linear.weight, "ds_id") and low_rank(head):
        return "there are adapters on the head, under ZeRO-3"
    return ""


def plain_layer(head: Any) -> nn.Linear | None:
    """The linear layer in a head, if all else in it is known: LoRA, or a copy trained whole."""
    if "forward" in vars(head):  # someone else's
        return None
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        return head  # FSDP makes subclasses of its own
    if not type(head).__module__.startswith("peft."):
        return None
    if hasattr(head, "modules_to_save"):
        return plain_layer(trained_whole(head))
    from peft.tuners.lora import Linear

    if type(head) is not Linear or (head.disable_adapters and head.merged):
        return None  # the latter takes its adapters out of the weights as it runs
    known = not head.lora_variant and all(b.bias is None for b in head.lora_B.values())
    return plain_layer(head.base_layer) if known else None


def trained_whole(wrapper: Any) -> nn.Module:
    """The layer that peft's `modules_to_save` runs: the active adapter's copy, or the model's."""
    active = [] if wrapper.disable_adapters else wrapper.active_adapters
    kept: nn.Module = wrapper.modules_to_save[active[0]] if active else wrapper.original_module
    return kept


def low_rank(head: Any) -> list[str]:
    """Names of the LoRA adapters that are at work on a head."""
    if not hasattr(head, "lora_A") or head.disable_adapters or head.merged:
        return []
    return [name for name in head.active_adapters if name in head.lora_A]


# --- its head, answering --------------------------------------------------------------------------


@contextmanager
def answering(head: Any, ask: Ask) -> Iterator[list[Answer]]:
    """Context in which a head answers `[1, K, 1]` log-probs; the whole answer goes into a list."""
    while hasattr(head, "modules_to_save"):
        head = trained_whole(head)
    names = low_rank(head)
    linear: nn.Linear = plain_layer(head)  # type: ignore[assignment]
    asked = head if names else linear  # its hooks run, ZeRO-3's among them
    made: list[Answer] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        products = [(hidden[0], linear.weight)]
        products += [adapter_product(head, name, hidden[0]) for name in names]
        found = chunked_answer(
            products, linear.bias, ask.targets, ask.weights, ask.form, ask.collision
        )
        made.append(found)
        return found.logps[None, :, None]

    vars(asked)["forward"] = torch.compiler.disable(forward)  # type: ignore[no-untyped-call]
    try:
        yield made
    finally:
        del vars(asked)["forward"]


def adapter_product(
    head: Any, name: str, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`[K, r]` and `[V, r]`: what LoRA adds to the logits is the product of the two."""
    down, up = head.lora_A[name], head.lora_B[name].weight
    inner = down(head.lora_dropout[name](hidden.to(down.weight.dtype)))
    return inner * head.scaling[name], up


def why_not(out: torch.Tensor, made: list[Answer], form: Form) -> str:
    """Whether a model did to the head's answer what its configuration says it does to logits.

    It is asked of the first batch only. The answer, which stands where logits would, is small.
    """
    if len(made) != 1:
        return f"the model called its head {len(made)} times in a forward pass"
    logps = made[0].logps.detach()[None, :, None]
    expected = logps if form.plain else form.after(logps)
    if out.shape == expected.shape and torch.allclose(wide(out.detach()), expected, rtol=1e-4):
        return ""
    return "the model does something to its logits that its configuration does not tell"
