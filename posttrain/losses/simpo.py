"""SimPO: average log-probs, a target margin, no reference (Meng et al. 2024, arXiv:2405.14734).

    loss = -log sigmoid(beta * (m_chosen - m_rejected) - gamma),   m = log pi / tokens   (Eq. 6)

gamma is the paper's, a margin of rewards. Some code bases give gamma / beta instead (open-instruct
`gamma_beta_ratio`); TRL's `simpo_gamma` is this one.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class SimPO(PreferenceLoss):
    """The paper finds beta 2 to 2.5 and gamma 0.3 to 1.6 best."""

    beta: float = 2.0
    gamma: float = 0.5
    needs_reference = False

    def __post_init__(self) -> None:
        positive_beta("SimPO", self.beta)
        if not self.gamma >= 0:
            raise ValueError(f"gamma: got {self.gamma}; SimPO needs gamma >= 0")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, None, per_token=True)
        losses = -F.logsigmoid(self.beta * (chosen - rejected) - self.gamma)
        return rewarded(losses, chosen, rejected, self.beta)
