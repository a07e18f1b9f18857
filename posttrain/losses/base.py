"""Shapes and reductions that every loss shares.

Legend: B pairs, K trained tokens of a packed batch, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities of both answers of B pairs, and how many tokens they have.

    Attributes:
        chosen, rejected: `[B]` sum of log-probs over the trained tokens.
        chosen_tokens, rejected_tokens: `[B]` counts of those tokens.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


@dataclass(frozen=True)
class PairLoss:
    """What a preference loss returns, all `[B]`: the loss and the implicit rewards it optimises."""

    losses: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor


@dataclass(frozen=True)
class TokenLogps:
    """Log-probabilities of K sampled tokens under three policies.

    Attributes:
        policy: `[K]` the policy being trained.
        old: `[K]` the policy that sampled, detached.
        reference: `[K]` the stage's start, or `None` without a KL term.
    """

    policy: torch.Tensor
    old: torch.Tensor
    reference: torch.Tensor | None


def segment_sum(values: torch.Tensor, segment: torch.Tensor, num: int) -> torch.Tensor:
    """Sum `[K]` values per sequence: `[num]`."""
    return values.new_zeros(num).index_add(0, segment, values)


def token_weights(tokens: torch.Tensor, segment: torch.Tensor, reduction: str) -> torch.Tensor:
    """Weight of each trained token under a reduction, `[K]`; `num_items` is its denominator.

    `token_mean` and `sum` weigh tokens alike, `sequence_mean` by 1 / (tokens of the sequence).
    """
    ones = torch.ones_like(segment, dtype=torch.float32)
    return ones / tokens[segment] if reduction == "sequence_mean" else ones


def num_items(tokens: torch.Tensor, reduction: str) -> torch.Tensor:
    """This micro-batch's part of the loss denominator: trained tokens, or sequences that have any.

    `sum` is "summed over tokens, averaged over the batch's sequences": what Tülu 3's command
    computes at one sequence per forward pass (arXiv:2411.15124, section 4.3.2).
    """
    return (tokens.sum() if reduction == "token_mean" else (tokens > 0).sum()).float()
