"""REINFORCE (Williams 1992): the policy gradient itself.

    loss_t = -A log pi_t

There is no ratio, so it is right for the first step after a rollout only; later ones, and
rollouts of older weights, want `importance` or another loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import PolicyLoss, TokenLogps


@dataclass(frozen=True)
class Reinforce(PolicyLoss):
    """RLOO (arXiv:2402.14740) is this with leave-one-out advantages and the reduction `sum`."""

    def surrogate(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        return -advantages * logps.policy
