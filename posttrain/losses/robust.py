"""Robust DPO (Ray Chowdhury et al. 2024, arXiv:2403.00409): unbiased under flipped preferences.

    loss = ((1 - eps) * l(z) - eps * l(-z)) / (1 - 2 eps),
    l(z) = -log sigmoid(z),   z = beta * (d_chosen - d_rejected),   d = log pi - log pi_ref

When preferences are flipped with probability eps, its expectation is DPO's loss on the true ones.
cDPO (`dpo` with `label_smoothing`) adds the flipped term instead, and is biased.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from posttrain.losses.base import (
    PairLogps,
    PairLoss,
    PreferenceLoss,
    flip_probability,
    log_ratios,
    positive_beta,
    rewarded,
)


@dataclass(frozen=True)
class RobustDPO(PreferenceLoss):
    """`label_smoothing` is eps, the probability of a flip; 0 is DPO."""

    beta: float = 0.1
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        positive_beta("robust DPO", self.beta)
        flip_probability(self.label_smoothing)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference)
        logits, eps = self.beta * (chosen - rejected), self.label_smoothing
        unbiased = eps * F.logsigmoid(-logits) - (1 - eps) * F.logsigmoid(logits)
        return rewarded(unbiased / (1 - 2 * eps), chosen, rejected, self.beta)
