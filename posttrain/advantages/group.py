"""Group-normalised advantages (GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    A = (r - mean of the group) / (std of the group + eps)

A group whose rewards are all equal gives exact zeros: it teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GroupAdvantage:
    """`scale="none"` leaves the division out (Dr. GRPO, arXiv:2503.20783).

    The divisor n - 1 and eps 1e-8 are those of Tülu 3.1's code.
    """

    scale: str = "std"
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.scale not in ("std", "none"):
            raise ValueError(f"scale: got {self.scale!r}; allowed are std, none")

    def __call__(self, rewards: torch.Tensor) -> torch.Tensor:
        """`rewards` `[P, G]` (prompts, completions of each) -> advantages `[P, G]`."""
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        # the mean of equal fractions may be off by a rounding, which the division would blow up
        centred = centred.masked_fill((rewards == rewards[:, :1]).all(dim=1, keepdim=True), 0.0)
        if self.scale == "none" or rewards.shape[1] < 2:
            return centred
        return centred / (rewards.std(dim=1, keepdim=True) + self.epsilon)
