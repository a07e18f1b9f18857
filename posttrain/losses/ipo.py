"""IPO: a squared loss with a finite target (Azar et al. 2023, arXiv:2310.12036, Eq. 17).

    loss = (d_chosen - d_rejected - 1 / (2 beta))^2,   d = log pi - log pi_ref

Unlike a sigmoid it is content once the margin is 1 / (2 beta), so certain preferences do not push
the policy away for ever; beta is the paper's tau. The d are averages over the answer's tokens: the
paper does not say so, but its authors confirmed to the maintainers of TRL that its results are of
that form. `length_normalise: false` takes sums.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.losses.base import (
    PairLogps,
    PairLoss,
    PreferenceLoss,
    log_ratios,
    positive_beta,
    rewarded,
)


@dataclass(frozen=True)
class IPO(PreferenceLoss):
    """The larger beta, the closer the policy stays to the reference."""

    beta: float = 0.1
    length_normalise: bool = True

    def __post_init__(self) -> None:
        positive_beta("IPO", self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, reference, self.length_normalise)
        losses = (chosen - rejected - 1 / (2 * self.beta)) ** 2
        return rewarded(losses, chosen, rejected, self.beta)
