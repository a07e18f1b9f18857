"""CISPO (MiniMax-M1, 2025, arXiv:2506.13585, Eq. 4 and 5): clip the weight, keep the token.

    loss_t = -sg(min(ratio_t, 1 + eps_high)) A log pi_t

PPO's clip drops a token's gradient altogether, and the rare tokens at which a line of thought
turns are the first to go. Here a ratio that is out of bounds only stops growing. There is no lower
bound, as in the paper's runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import PolicyLoss, TokenLogps


@dataclass(frozen=True)
class CISPO(PolicyLoss):
    """A ratio of at most 5 is ScaleRL's (arXiv:2510.13786); MiniMax does not print its own."""

    epsilon_high: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon_high > 0:
            raise ValueError(f"epsilon_high: got {self.epsilon_high}; CISPO needs it above 0")

    def surrogate(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        weight = (logps.policy - logps.old).exp().clamp(max=1 + self.epsilon_high)
        return -weight.detach() * advantages * logps.policy

    def clipped(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        return (logps.policy - logps.old).detach().exp() > 1 + self.epsilon_high
