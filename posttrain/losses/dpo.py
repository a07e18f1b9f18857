"""DPO (Rafailov et al. 2023, arXiv:2305.18290), plain and length-normalised.

The length-normalised form is that of Tülu 3 (arXiv:2411.15124, Eq. 6).

    loss = -log sigmoid(beta * (d_chosen - d_rejected)),   d = log pi - log pi_ref

With `length_normalise` each d is divided by its answer's tokens, and the rewards that are
reported are the normalised ones, which are what is optimised. Equal answers give log 2 and no
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
class DPO(PreferenceLoss):
    """beta 0.1 is the paper's; Tülu 3 uses 5 with `length_normalise` (Table 20)."""

    beta: float = 0.1
    length_normalise: bool = False
    label_smoothing: float = 0.0  # cDPO: probability that a preference is flipped

    def __post_init__(self) -> None:
        positive_beta("DPO", self.beta)
        flip_probability(self.label_smoothing)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference, self.length_normalise)
        return rewarded(self.losses(chosen - rejected), chosen, rejected, self.beta)

    def losses(self, difference: torch.Tensor) -> torch.Tensor:
        """Loss of d_chosen - d_rejected, `[B]`."""
        logits = self.beta * difference
        kept, flipped = 1 - self.label_smoothing, self.label_smoothing
        return -kept * F.logsigmoid(logits) - flipped * F.logsigmoid(-logits)
