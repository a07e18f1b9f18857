"""APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7): anchored at the reference.

    loss = 1 - sigmoid(beta * d_chosen) + sigmoid(beta * d_rejected),   d = log pi - log pi_ref

The chosen answer is made likelier and the rejected one less likely, each by itself. For data whose
chosen answers are better than what the model writes; where they are worse, see `apo_down`.
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
class APOZero(PreferenceLoss):
    """beta 0.1 is the paper's."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive_beta("APO-zero", self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference)
        losses = torch.sigmoid(-self.beta * chosen) + torch.sigmoid(self.beta * rejected)
        return rewarded(losses, chosen, rejected, self.beta)
