"""DiscoPOP, a loss found by a language model (Lu et al. 2024, arXiv:2406.08414, Eq. 5).

    loss = (1 - s) * -log sigmoid(z) + s * exp(-z),
    s = sigmoid(z / tau),   z = beta * (d_chosen - d_rejected),   d = log pi - log pi_ref

A logistic loss where the order is wrong and an exponential one where it is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from posttrain.losses.base import (
    PairLogps,
    PairLoss,
    PreferenceLoss,
    log_ratios,
    positive_beta,
    rewarded,
)


@dataclass(frozen=True)
class DiscoPOP(PreferenceLoss):
    """beta and tau are both 0.05 in the paper."""

    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        positive_beta("DiscoPOP", self.beta)
        if not self.tau > 0:
            raise ValueError(f"tau: got {self.tau}; DiscoPOP needs tau > 0")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference)
        logits = self.beta * (chosen - rejected)
        share = torch.sigmoid(logits / self.tau)
        losses = (1 - share) * -F.logsigmoid(logits) + share * torch.exp(-logits)
        return rewarded(losses, chosen, rejected, self.beta)
