"""The hinge of SLiC-HF (Zhao et al. 2023, arXiv:2305.10425), on log-ratios.

    loss = max(0, 1 - beta * (d_chosen - d_rejected)),   d = log pi - log pi_ref

SLiC compares log-probs; RSO (Liu et al. 2023, arXiv:2309.06657) compares log-ratios to the
reference, which is what stands here. A pair whose margin is 1 or more has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import (
    PairLogps,
    PairLoss,
    PreferenceLoss,
    log_ratios,
    positive_beta,
    rewarded,
)


@dataclass(frozen=True)
class Hinge(PreferenceLoss):
    """1 / beta is the margin of log-ratios that is enough."""

    beta: float = 0.1
    length_normalise: bool = False

    def __post_init__(self) -> None:
        positive_beta("hinge", self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference, self.length_normalise)
        losses = torch.relu(1 - self.beta * (chosen - rejected))
        return rewarded(losses, chosen, rejected, self.beta)
