"""Group-normalised advantages (GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    A = (r - mean of the group) / (std of the group + eps)

A group whose rewards are all equal gives exact zeros: it teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.advantages.base import GroupMethod, Reduce, alone, moments, without_spread

SCALES = ("std", "none", "batch")


@dataclass(frozen=True)
class GroupAdvantage(GroupMethod):
    """`scale="none"` leaves the division out (Dr. GRPO, arXiv:2503.20783).

    `scale="batch"` divides by the deviation of all rewards of the global batch instead of the
    group's (Lite PPO, arXiv:2508.08221). The divisor n - 1 and eps 1e-8 are those of Tülu 3.1's
    code.
    """

    scale: str = "std"
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale: got {self.scale!r}; allowed are {', '.join(SCALES)}")

    def __call__(self, rewards: torch.Tensor, reduce: Reduce = alone) -> torch.Tensor:
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        # the mean of equal fractions may be off by a rounding, which the division would blow up
        centred = centred.masked_fill(without_spread(rewards), 0.0)
        if self.scale == "batch":
            spread = moments(rewards, reduce)[1].sqrt().to(rewards.dtype)
        elif self.scale == "none" or rewards.shape[1] < 2:
            return centred
        else:
            spread = rewards.std(dim=1, keepdim=True)
        return centred / (spread + self.epsilon)
