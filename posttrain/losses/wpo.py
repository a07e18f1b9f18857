"""WPO: pairs weighted by how likely the policy is to write them (Zhou et al. 2024).

arXiv:2406.11827, Eq. 2, with the alignment of weights that the paper proposes:

    loss = w(chosen) * w(rejected) * DPO loss,
    log w(y) = mean over tokens of (log pi(y_t) - log sum_v pi(v)^2)

The second term is sampled alignment: an answer sampled from the policy has a weight of about 1,
whatever the entropy of the policy. `alignment: none` leaves it out, so w is the geometric mean of
the token probabilities. Weights have no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.losses.base import PairLogps, PairLoss
from posttrain.losses.dpo import DPO

ALIGNMENTS = ("sampled", "none")


@dataclass(frozen=True)
class WPO(DPO):
    """`max_weight` bounds the weight of a pair; `null` leaves it free, as TRL does."""

    alignment: str = "sampled"
    max_weight: float | None = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alignment not in ALIGNMENTS:
            raise ValueError(
                f"alignment: got {self.alignment!r}; allowed are {', '.join(ALIGNMENTS)}"
            )
        if self.max_weight is not None and not self.max_weight > 0:
            raise ValueError(f"max_weight: got {self.max_weight}; WPO needs max_weight > 0 or null")

    @property
    def needs_collision(self) -> bool:  # type: ignore[override]
        return self.alignment == "sampled"

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        out = super().__call__(policy, reference)
        return PairLoss(out.losses * self.weights(policy), out.chosen_rewards, out.rejected_rewards)

    def weights(self, policy: PairLogps) -> torch.Tensor:
        """Weight of every pair, `[B]`, without a gradient."""
        chosen, rejected = policy.chosen.detach(), policy.rejected.detach()
        if self.needs_collision:
            assert policy.chosen_collision is not None and policy.rejected_collision is not None
            chosen = chosen - policy.chosen_collision
            rejected = rejected - policy.rejected_collision
        weights = torch.exp(
            chosen / policy.chosen_tokens.clamp(min=1)
            + rejected / policy.rejected_tokens.clamp(min=1)
        )
        return weights if self.max_weight is None else weights.clamp(max=self.max_weight)
