"""Rewards of a rollout -> the advantage of every token of its packed batches.

All of it is over the whole rollout at once, so that neither the mini-batches nor how they were cut
change what is whitened over what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from posttrain.advantages.base import GroupMethod, Reduce, TokenMethod, token_rewards
from posttrain.losses.base import segment_sum
from posttrain.losses.kl import KL_ESTIMATORS

Batch = dict[str, Any]


def kl_of(batch: Batch, estimator: str) -> torch.Tensor:
    """`[K]` estimates of KL(pi_old || reference) at the tokens that were drawn."""
    kl: torch.Tensor = KL_ESTIMATORS[estimator](batch["old_logps"] - batch["ref_logps"])
    return kl


def kl_per_completion(batches: Sequence[Batch], estimator: str, count: int) -> torch.Tensor:
    """`[count]` estimates summed over the tokens of each completion."""
    total: torch.Tensor | None = None
    for batch in batches:
        kl = kl_of(batch, estimator)
        whose = batch["number"].to(kl.device)[batch["segment"].to(kl.device)]
        part = segment_sum(kl, whose, count)
        total = part if total is None else total + part
    return torch.zeros(count) if total is None else total


def credit_groups(
    method: GroupMethod, rewards: torch.Tensor, batches: Sequence[Batch], reduce: Reduce
) -> None:
    """Fill in the advantages of packed batches, one number for all tokens of a completion.

    Args:
        rewards: `[P, G]` of the completions, numbered row by row; a KL is in them already.
    """
    flat = method(rewards, reduce).flatten()
    for batch in batches:
        device = flat.device
        whose = batch["number"].to(device)[batch["segment"].to(device)]
        batch["advantages"] = flat[whose]


def credit_tokens(
    method: TokenMethod,
    rewards: torch.Tensor,
    batches: Sequence[Batch],
    reduce: Reduce,
    estimator: str | None = None,
    beta: float = 0.0,
) -> None:
    """Fill in the advantages of packed batches, and the returns where there are values.

    Args:
        rewards: `[P, G]` of the completions, numbered row by row; they stand on the last tokens.
        estimator: of the KL in the reward of every token; `None`: there is none.
        beta: its weight.
    """
    device = rewards.device
    numbers = torch.cat([batch["number"] for batch in batches]).to(device)
    tokens = torch.cat([batch["tokens"] for batch in batches]).to(device)
    flat = torch.cat([rewards.flatten(), rewards.new_zeros(1)])  # -1: a batch without completions
    kl = None
    if estimator is not None:
        kl = torch.cat([kl_of(batch, estimator) for batch in batches]).to(device)
    values = None
    if method.needs_values:
        values = torch.cat([batch["old_values"] for batch in batches]).to(device)
    each = token_rewards(flat[numbers], tokens, kl, beta)
    credit = method(each, tokens, values, reduce)
    sizes = [len(batch["segment"]) for batch in batches]
    for batch, own in zip(batches, torch.split(credit.advantages, sizes), strict=True):
        batch["advantages"] = own
    if credit.returns is not None:
        for batch, own in zip(batches, torch.split(credit.returns, sizes), strict=True):
            batch["returns"] = own
