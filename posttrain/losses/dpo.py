"""DPO (Rafailov et al. 2023, arXiv:2305.18290), plain and length-normalised.

The length-normalised form is that of Tülu 3 (arXiv:2411.15124, Eq. 6).

    loss = -log sigmoid(beta * (d_chosen - d_rejected)),   d = log pi - log pi_ref

With `length_normalise` each d is divided by its answer's tokens, and the rewards that are
reported are the normalised ones, which are what is optimised. Equal answers give log 2 and no
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from posttrain.losses.base import PairLogps, PairLoss


@dataclass(frozen=True)
class DPO:
    """beta 0.1 is the paper's; Tülu 3 uses 5 with `length_normalise` (Table 20)."""

    beta: float = 0.1
    length_normalise: bool = False
    label_smoothing: float = 0.0  # cDPO: probability that a preference is flipped

    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta: got {self.beta}; DPO needs beta > 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing: got {self.label_smoothing}; allowed is 0 <= x < 0.5"
            )

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        assert reference is not None, "DPO compares with a reference"
        chosen = policy.chosen - reference.chosen
        rejected = policy.rejected - reference.rejected
        if self.length_normalise:
            chosen, rejected = chosen / policy.chosen_tokens, rejected / policy.rejected_tokens
        logits: torch.Tensor = self.beta * (chosen - rejected)
        losses = -(1 - self.label_smoothing) * F.logsigmoid(
            logits
        ) - self.label_smoothing * F.logsigmoid(-logits)
        return PairLoss(losses, self.beta * chosen.detach(), self.beta * rejected.detach())
