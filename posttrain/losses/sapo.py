"""SAPO (2025, arXiv:2511.20347): a soft gate in place of the clip.

    loss_t = -4 / tau sigmoid(tau (ratio_t - 1)) A

Its gradient is REINFORCE's at ratio 1 and fades on both sides, faster where A <= 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from posttrain.losses.base import PolicyLoss, TokenLogps


@dataclass(frozen=True)
class SAPO(PolicyLoss):
    """Temperatures 1.0 and 1.05 are the paper's."""

    reduction: ClassVar[str] = "sequence_mean"

    temperature_positive: float = 1.0
    temperature_negative: float = 1.05

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature_positive", "temperature_negative"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; SAPO needs it above 0")

    def surrogate(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        ratio = (logps.policy - logps.old).exp()
        tau = torch.where(advantages > 0, self.temperature_positive, self.temperature_negative)
        return -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages
