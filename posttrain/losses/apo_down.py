"""APO-down (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8): both down, one further.

    loss = sigmoid(beta * d_chosen) + 1 - sigmoid(beta * (d_chosen - d_rejected)),
    d = log pi - log pi_ref

The chosen answer is made less likely too, and the rejected one more so. For data whose chosen
answers are worse than what the model writes; where they are better, see `apo_zero`.
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
class APODown(PreferenceLoss):
    """beta 0.1 is the paper's."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive_beta("APO-down", self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference)
        losses = torch.sigmoid(self.beta * chosen) + torch.sigmoid(-self.beta * (chosen - rejected))
        return rewarded(losses, chosen, rejected, self.beta)
