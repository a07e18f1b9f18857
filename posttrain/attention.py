"""Exact attention for packed rows on any SDPA back end, with shared prompts forwarded once.

A micro-batch is one packed row of T tokens. Linear layers see those T tokens and nothing else.
Only inside attention are queries, keys and values gathered into B padded rows of L tokens, where
plain causal attention is exact: padding stands to the right, so no real token ever sees it, and
no mask is built. A prompt that several answers share stands once in the packed row and is
gathered into each answer's row (`rows[b] = prompt + answer_b`).

Legend: T packed tokens, B sequences, L longest sequence, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

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
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each sequence of a packed row.

    Args:
        query, key, value: `[1, H, T, D]` (keys and values may have fewer heads).
        packed_rows: `[B, L]` positions in the packed row, right-padded with any position.
        packed_back: `[T]` where each packed token stands in the flattened `[B * L]` rows.

    Returns:
        `[1, T, H, D]` and no weights, as transformers' attention interface expects.
    """
    if packed_rows is None or packed_back is None:
        raise ModelError(
            "packed attention was called without `packed_rows`; use the posttrain collators"
        )
    batch, length = packed_rows.shape
    flat = packed_rows.reshape(-1)

    def gather(x: torch.Tensor) -> torch.Tensor:
        heads, width = x.shape[1], x.shape[3]
        rows = x.transpose(1, 2).reshape(-1, heads * width).index_select(0, flat)
        return rows.view(batch, length, heads, width).transpose(1, 2)

    window = kwargs.pop("sliding_window", None)
    mask = None
    if (
        window is not None and length > window
    ):  # Mistral: each token sees the `window` last ones, itself included
        ahead = torch.arange(length, device=query.device)
        distance = ahead[:, None] - ahead[None, :]
        mask = ((distance >= 0) & (distance < window))[None, None]
    kwargs.pop("is_causal", None)
    out, _ = sdpa_attention_forward(
        module, gather(query), gather(key), gather(value), mask, is_causal=mask is None, **kwargs
    )
    heads, width = out.shape[2], out.shape[3]
    out = out.reshape(batch * length, heads * width).index_select(0, packed_back)
    return out.view(1, -1, heads, width), None


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
