"""PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, Eq. 7).

    loss_t = -min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps_high) A),    ratio = pi / pi_old

Where A < 0 nothing bounds the loss from above: `dual_clip` c caps it at -c A (Ye et al. 2020,
arXiv:1912.09729), which TRL calls delta.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import PolicyLoss, TokenLogps


@dataclass(frozen=True)
class PPO(PolicyLoss):
    """epsilon 0.2 on both sides is Tülu 3's; `epsilon_high` opens the upper side."""

    epsilon: float = 0.2
    epsilon_high: float | None = None
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon: got {self.epsilon}; {type(self).__name__} needs epsilon > 0"
            )
        if self.epsilon_high is not None and not self.epsilon_high > 0:
            raise ValueError(f"epsilon_high: got {self.epsilon_high}; allowed is above 0, or null")
        if self.dual_clip is not None and not self.dual_clip > self.high:
            raise ValueError(
                f"dual_clip: got {self.dual_clip}; it must be above 1 + epsilon_high = {self.high}"
            )

    @property
    def low(self) -> float:
        """The smallest ratio that is rewarded for moving on."""
        return 1 - self.epsilon

    @property
    def high(self) -> float:
        """The largest."""
        return 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)

    def log_ratio(self, logps: TokenLogps) -> torch.Tensor:
        """log pi / pi_old, `[K]`."""
        return logps.policy - logps.old

    def surrogate(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        ratio = self.log_ratio(logps).exp()
        bounded = ratio.clamp(self.low, self.high)
        losses = -torch.minimum(ratio * advantages, bounded * advantages)
        if self.dual_clip is not None:
            capped = torch.minimum(losses, -self.dual_clip * advantages)
            losses = torch.where(advantages < 0, capped, losses)
        return losses

    def clipped(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        ratio = self.log_ratio(logps).exp().detach()
        cap = float("inf") if self.dual_clip is None else self.dual_clip
        above = (advantages > 0) & (ratio > self.high)
        return above | (advantages < 0) & ((ratio < self.low) | (ratio > cap))
