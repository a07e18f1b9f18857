"""GRPO's clipped surrogate with a k3 KL penalty (Shao et al. 2024, arXiv:2402.03300, Eq. 3 and 4).

    loss_t = -min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps_high) A) + beta (exp(-d) - 1 + d)

with ratio = pi / pi_old and d = log pi - log pi_ref. The term is returned per token, unreduced:
`losses.base` owns the reductions. No signal where A = 0 and beta = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import TokenLogps


@dataclass(frozen=True)
class GRPO:
    """epsilon 0.2 on both sides is Tülu 3.1's; `epsilon_high` opens the upper side (DAPO)."""

    epsilon: float = 0.2
    epsilon_high: float | None = None

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon: got {self.epsilon}; GRPO needs epsilon > 0")

    def __call__(self, logps: TokenLogps, advantages: torch.Tensor, beta: float) -> torch.Tensor:
        """Loss per token.

        Args:
            logps: `[K]` each.
            advantages: `[K]` the advantage of each token's completion.
            beta: weight of the KL term.
        """
        ratio = torch.exp(logps.policy - logps.old)
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped = ratio.clamp(1 - self.epsilon, 1 + high)
        loss = -torch.minimum(ratio * advantages, clipped * advantages)
        if beta and logps.reference is not None:
            # Tülu 3.1 clamps d to +-40 so that one absurd token cannot overflow the exponential
            d = (logps.policy - logps.reference).clamp(-40, 40)
            loss = loss + beta * (torch.exp(-d) - 1 + d)
        return loss
