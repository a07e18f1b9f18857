"""Exact attention for packed rows, with shared prompts forwarded once.

A micro-batch is one packed row of T tokens. It is made of parts: prompts, and answers of which each
follows a prompt or nothing. A token attends to the earlier ones of its own part and, in an answer,
to the prompt that it follows. Linear layers see the T tokens and nothing else; how attention itself
is computed is a matter of the machine: see kernels.py.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from posttrain.attention.kernels import Call, attend
from posttrain.errors import ModelError

NAME = "posttrain_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_rows: torch.Tensor | None = None,
    packed_back: torch.Tensor | None = None,
    packed_parts: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each sequence of a packed row.

    Args:
        query, key, value: `[1, H, T, D]` (keys and values may have fewer heads).
        packed_rows: `[B, L]` positions in the packed row, right-padded with any position.
        packed_back: `[T]` where each packed token stands in the flattened `[B * L]` rows.
        packed_parts: per part its length, and which part it follows (-1: none).

    Returns:
        `[1, T, H, D]` and no weights, as transformers' attention interface expects.
    """
    if packed_rows is None or packed_back is None:
        raise ModelError(
            "packed attention was called without `packed_rows`; use the posttrain collators"
        )
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} asks attention for {name!r}, which packed "
                "attention cannot reproduce"
            )
    call = Call(
        rows=packed_rows,
        back=packed_back,
        parts=tuple(map(tuple, packed_parts)) if packed_parts is not None else None,
        window=kwargs.get("sliding_window"),
        scale=kwargs.get("scaling"),
        dropout=kwargs.get("dropout", 0.0),
    )
    return attend(query, key, value, call), None


AttentionInterface.register(NAME, packed_attention)


class use_attention:
    """Context in which `model` attends with the named implementation, then as before.

    Training uses the packed one; generation needs a cache and transformers' own masks.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self.model, self.name = model, name

    def __enter__(self) -> None:
        self.before = self.model.config._attn_implementation
        set_attention(self.model, self.name)

    def __exit__(self, *_: object) -> None:
        set_attention(self.model, self.before)


def set_attention(model: PreTrainedModel, name: str = NAME) -> None:
    """Select an attention implementation on a loaded model.

    Raises:
        ModelError: the architecture does not go through transformers' attention interface.
    """
    if name == NAME and not getattr(model, "_supports_sdpa", False):
        raise ModelError(
            f"{type(model).__name__} does not support scaled-dot-product attention through "
            "transformers' attention interface, which packed training needs"
        )
    softcap = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if name == NAME and softcap is not None:
        raise ModelError(
            f"{type(model).__name__} caps its attention scores (attn_logit_softcapping={softcap}), "
            "which packed attention cannot reproduce"
        )
    model.set_attn_implementation(name)
