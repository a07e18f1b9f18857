"""GSPO (Zheng et al. 2025, arXiv:2507.18071, Eq. 5 to 7): the ratio of a whole completion.

    ratio = exp(mean over the completion of log pi / pi_old),    clipped as in PPO

Each token carries the completion's ratio and its own gradient (GSPO-token, Eq. 13 and 14). Where a
completion's tokens share an advantage and a weight, value and gradient are GSPO's. The mean moves
far less than a token does, hence bounds of a few ten-thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from posttrain.losses.base import TokenLogps, segment_sum
from posttrain.losses.ppo import PPO


@dataclass(frozen=True)
class GSPO(PPO):
    """3e-4 below and 4e-4 above are the paper's (section 5.1); it has no KL term."""

    reduction: ClassVar[str] = "sequence_mean"

    epsilon: float = 3e-4
    epsilon_high: float | None = 4e-4

    def log_ratio(self, logps: TokenLogps) -> torch.Tensor:
        segment, tokens = logps.completions()
        total = segment_sum((logps.policy - logps.old).detach(), segment, len(tokens))
        mean = (total / tokens.clamp(min=1))[segment]
        return mean + logps.policy - logps.policy.detach()
