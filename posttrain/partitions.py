"""Parameters that ZeRO-3 keeps in parts, whole for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gathered(
    parameters: Iterable[torch.Tensor], modifier_rank: int | None = None
) -> AbstractContextManager[Any]:
    """Whole parameters for the time of the context under ZeRO-3; nothing otherwise."""
    parts = [p for p in parameters if hasattr(p, "ds_id")]
    if not parts:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parts, modifier_rank=modifier_rank)


@contextmanager
def whole(
    wrapped: Any, model: PreTrainedModel, but: nn.Module | None = None
) -> Iterator[PreTrainedModel]:
    """The model to run freely, at another pace than the other processes do (generation).

    Under ZeRO-3 its parameters are gathered, and the hooks are off that partition them again or ask
    the first process what it ran: those that stop at different steps would wait for ever.

    Args:
        but: a module that is not run, and stays in parts.
    """
    if not any(hasattr(p, "ds_id") for p in model.parameters()):
        yield model
        return
    from trl.models.utils import add_hooks, remove_hooks

    offload = getattr(wrapped, "optimizer", None)
    asks = getattr(getattr(offload, "parameter_offload", offload), "fwd_pre_hook", None)
    hooks = asks.hooks_dict_ref() if asks else {}
    left = {id(p) for p in but.parameters()} if but is not None else set()
    with gathered(p for p in wrapped.parameters() if id(p) not in left):
        remove_hooks(wrapped)  # all but one
        kept = {asks.id: hooks.pop(asks.id)} if asks else {}
        try:
            yield model
        finally:
            hooks.update(kept)
            add_hooks(wrapped)
