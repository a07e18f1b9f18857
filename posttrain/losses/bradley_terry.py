"""Bradley-Terry reward-model loss (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1).

    loss = -log sigmoid(r_chosen - r_rejected - m) + c (r_chosen + r_rejected)^2

The margin m asks for a wider gap where raters were surer (Touvron et al. 2023, arXiv:2307.09288,
Eq. 2). The loss sees differences of scores only, so their level is left to chance; the second term
holds it near zero (Eisenstein et al. 2023, arXiv:2312.09244, Eq. 2; c = 0.01).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class BradleyTerry:
    """The loss and its options.

    Attributes:
        margin: `None` uses the rows' `margin` where they have one; `True` asks every row for it; a
            name is the column it stands in; `False` leaves it out.
        center_rewards_coefficient: c; `None` is 0.
    """

    margin: bool | str | None = None
    center_rewards_coefficient: float | None = None

    def __post_init__(self) -> None:
        c = self.center_rewards_coefficient
        if c is not None and not (isfinite(c) and c >= 0):
            raise ValueError(f"center_rewards_coefficient: got {c}; allowed is a number >= 0")
        if self.margin == "" or not isinstance(self.margin, (bool, str, type(None))):
            raise ValueError(
                f"margin: got {self.margin!r}; allowed is true, false or the name of a column"
            )

    @property
    def column(self) -> str | None:
        """Where a row's margin stands; `None`: nowhere."""
        if self.margin is False:
            return None
        return self.margin if isinstance(self.margin, str) else "margin"

    @property
    def needs_margin(self) -> bool:
        """Whether a row without a margin is a mistake."""
        return self.margin not in (None, False)

    def __call__(
        self, chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`[B]` scores of both answers, and the margins of the pairs -> `[B]` losses."""
        losses = bradley_terry(chosen, rejected, margin)
        if self.center_rewards_coefficient:
            losses = losses + self.center_rewards_coefficient * (chosen + rejected) ** 2
        return losses


def bradley_terry(
    chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | None = None
) -> torch.Tensor:
    """Loss per pair.

    Args:
        chosen, rejected: `[B]` scores of the two answers.
        margin: `[B]` how far apart they should be; default: 0.

    Returns:
        `[B]`; log 2 where the scores are `margin` apart.
    """
    gap = chosen - rejected
    return -F.logsigmoid(gap if margin is None else gap - margin)
