"""REINFORCE++ with a baseline (Hu et al. 2025, arXiv:2501.03262): group mean, global deviation.

    A' = r - mean of the group,    A = (A' - mean of all A') / std of all A'

The mean is local, so that hard and easy prompts compare; the deviation is that of the global
batch, so that a group with hardly any spread is not blown up. The paper adds the KL to the loss,
with k2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.advantages.base import GroupMethod, Reduce, alone, whiten, without_spread


@dataclass(frozen=True)
class ReinforcePlusPlusBaseline(GroupMethod):
    """Equal rewards give exact zeros, for the mean of all A' is zero."""

    def __call__(self, rewards: torch.Tensor, reduce: Reduce = alone) -> torch.Tensor:
        equal = without_spread(rewards)
        centred = (rewards - rewards.mean(dim=1, keepdim=True)).masked_fill(equal, 0.0)
        return whiten(centred, reduce).masked_fill(equal, 0.0)
