"""GRPO's clipped surrogate with a k3 KL penalty (Shao et al. 2024, arXiv:2402.03300, Eq. 3 and 4).

    loss_t = -min(ratio_t A, clip(ratio_t, 1 - eps, 1 + eps_high) A) + beta (exp(-d) - 1 + d)

with ratio = pi / pi_old and d = log pi - log pi_ref: PPO's loss, with the KL in it rather than in
the reward. No signal where A = 0 and beta = 0. The paper averages over a completion's tokens
first; Tülu 3.1 over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from posttrain.losses.ppo import PPO


@dataclass(frozen=True)
class GRPO(PPO):
    """epsilon 0.2 on both sides is Tülu 3.1's; `epsilon_high` opens the upper side (DAPO)."""

    reduction: ClassVar[str] = "sequence_mean"
