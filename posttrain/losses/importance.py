"""Corrections for a sampler whose probabilities are not those of the trainer.

Two engines round differently, and weights may be a step old, so tokens come from mu, not from
pi_old. With the ratio rho = pi_old / mu, taken per token or over the whole completion:

    truncate:  weight = min(rho, cap)          Ionides 2008; for rollouts Yao et al. 2025
    mask:      weight = rho inside [low, high], else 0    IcePop (Ring-1T, arXiv:2510.18855)

The weight multiplies the policy term, not the KL term, and carries no gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from posttrain.losses.base import TokenLogps, segment_sum

LEVELS = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class Correction(ABC):
    """`level="sequence"` gives every token the ratio of its whole completion."""

    level: str = "token"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level: got {self.level!r}; allowed are {', '.join(LEVELS)}")

    def __call__(self, logps: TokenLogps) -> torch.Tensor:
        """Weight of each token's policy term, `[K]`."""
        assert logps.sampler is not None
        # a token whose probability the sampler did not report is taken as it is
        gap = (logps.old - logps.sampler).detach().nan_to_num(nan=0.0)
        if self.level == "sequence":
            segment, tokens = logps.completions()
            gap = segment_sum(gap, segment, len(tokens))[segment]
        return self.weight(gap.exp())

    @abstractmethod
    def weight(self, ratio: torch.Tensor) -> torch.Tensor:
        """`[K]` ratios -> `[K]` weights."""


@dataclass(frozen=True)
class Truncate(Correction):
    """A cap of 2 is open-instruct's; TRL's is 3."""

    cap: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cap > 0:
            raise ValueError(f"cap: got {self.cap}; a ratio is capped above 0")

    def weight(self, ratio: torch.Tensor) -> torch.Tensor:
        return ratio.clamp(max=self.cap)


@dataclass(frozen=True)
class Mask(Correction):
    """0.5 and 5 are IcePop's."""

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low < self.high:
            raise ValueError(f"low, high: got {self.low}, {self.high}; needed is 0 <= low < high")

    def weight(self, ratio: torch.Tensor) -> torch.Tensor:
        return ratio.masked_fill((ratio < self.low) | (ratio > self.high), 0.0)


CORRECTIONS: dict[str, type[Correction]] = {"truncate": Truncate, "mask": Mask}
