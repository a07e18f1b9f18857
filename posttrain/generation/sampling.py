"""The draw of the next token, for all rows at once and from numbers that each row brings along."""

from __future__ import annotations

import numpy as np
import torch

from posttrain.generation.base import Sampling

BLOCK = 128  # tokens whose probabilities are summed before one of them is looked for
LIKELY = 512  # a nucleus is looked for among so many tokens first


def noise(seed: int, number: int, generation: int, length: int) -> np.ndarray:
    """`[length]` uniform numbers in [0, 1) of one answer: counter-based, so that none depends on
    another (Philox, Salmon et al. 2011)."""
    mask = (1 << 64) - 1
    key = np.array([seed & mask, ((number << 20) ^ generation) & mask], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(length)


def pick(
    logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row.

    Args:
        logits: `[B, V]`, any precision; they may be overwritten.
        sampling: temperature, top_k and top_p.
        uniform: `[B]` float64 in [0, 1): where in the cumulative distribution each row draws.
            Not needed when greedy.

    Returns:
        `[B]` tokens, and their `[B]` fp32 log-probs as `Completion.logps` has them.
    """
    logits = logits.float()
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    top, best = logits.max(-1, keepdim=True)
    rows, size = logits.shape
    weights = logits.new_zeros(rows, -(-size // BLOCK) * BLOCK)
    torch.sub(logits, top, out=weights[:, :size]).exp_()
    sums = weights.view(rows, -1, BLOCK).sum(-1).double()
    if sampling.temperature == 0:
        chosen = best[:, 0]
    else:
        assert uniform is not None
        if sampling.top_k or sampling.top_p < 1:
            chosen = truncated(weights[:, :size], sums.sum(-1), sampling, uniform)
        else:
            chosen = inverse(weights, sums, uniform)
    logps = (logits.gather(-1, chosen[:, None]) - top)[:, 0] - sums.sum(-1).log()
    return chosen, logps.float()


def invert(weights: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cumulative sum of `[B, N]` weights passes the share `uniform`, and how far it is
    into that weight, 0 to 1. A weight of 0 is never chosen."""
    reached = weights.double().cumsum(-1)
    target = uniform.clamp(0, 1 - 1e-15) * reached[:, -1]
    index = (reached <= target[:, None]).sum(-1, keepdim=True)
    weight = weights.gather(-1, index).double()
    inside = (target[:, None] - reached.gather(-1, index) + weight) / weight
    return index[:, 0], inside[:, 0]


def inverse(weights: torch.Tensor, sums: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw from `[B, V]` weights by way of `[B, V / BLOCK]` sums: the vocabulary is read once."""
    block, inside = invert(sums, uniform)
    rows = torch.arange(len(weights), device=weights.device)
    within, _ = invert(weights.view(len(weights), -1, BLOCK)[rows, block], inside)
    return block * BLOCK + within


def truncated(
    weights: torch.Tensor, total: torch.Tensor, sampling: Sampling, uniform: torch.Tensor
) -> torch.Tensor:
    """Draw among the `top_k` most probable tokens, then among those that make up `top_p`."""
    size = weights.shape[1]
    ordered, order = weights.topk(min(sampling.top_k or LIKELY, size))
    if not sampling.top_k and bool((ordered.double().sum(-1) < sampling.top_p * total).any()):
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    if sampling.top_p < 1:
        kept = ordered.double()
        whole = kept.sum(-1) if sampling.top_k else total
        before = kept.cumsum(-1) - kept
        ordered = ordered.masked_fill(before >= sampling.top_p * whole[:, None], 0)
    index, _ = invert(ordered, uniform)
    return order.gather(-1, index[:, None])[:, 0]
