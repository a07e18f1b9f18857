"""LD-DPO: the tail of the longer answer counts less (Liu et al. 2024, arXiv:2409.06411).

    loss = DPO loss of   log pi'(y) = sum_{t <= n} log pi(y_t) + alpha * sum_{t > n} log pi(y_t)

with n = min(tokens of chosen, tokens of rejected), for the policy and the reference alike. alpha 1
is DPO; alpha 0 does not see the tail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from posttrain.losses.base import PairLogps, PairLoss
from posttrain.losses.dpo import DPO


@dataclass(frozen=True)
class LDDPO(DPO):
    """With `length_normalise` the sums are divided by all tokens of the answer."""

    alpha: float = 0.5
    needs_shared = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: got {self.alpha}; allowed is 0 <= alpha <= 1")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        decayed = None if reference is None else self.decay(reference)
        return super().__call__(self.decay(policy), decayed)

    def decay(self, logps: PairLogps) -> PairLogps:
        """The same with every log-prob beyond the common length times alpha."""
        assert logps.chosen_shared is not None and logps.rejected_shared is not None
        chosen, rejected = logps.chosen_shared, logps.rejected_shared
        return replace(
            logps,
            chosen=chosen + self.alpha * (logps.chosen - chosen),
            rejected=rejected + self.alpha * (logps.rejected - rejected),
        )
