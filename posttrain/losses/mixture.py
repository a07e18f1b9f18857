"""Several preference losses, added with weights, as MPO does (Wang et al. 2024, arXiv:2411.10442).

    loss = sum_i weight_i * loss_i

The rewards reported are those of the first loss of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.losses.base import PairLogps, PairLoss, PreferenceLoss

Weighted = tuple[float, PreferenceLoss]


@dataclass(frozen=True)
class Mixture(PreferenceLoss):
    """In a recipe each of `losses` is a loss with its options, and a `weight` (default 1)."""

    losses: Sequence[Weighted]

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses: got none; name at least one, as [{name: dpo, weight: 1}]")
        for weight, loss in self.losses:
            if not weight > 0:
                raise ValueError(
                    f"weight: got {weight} for {type(loss).__name__}; a mixture needs weight > 0"
                )
        for need in ("needs_reference", "needs_shared", "needs_collision"):
            object.__setattr__(self, need, any(getattr(loss, need) for _, loss in self.losses))

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        parts = [(weight, loss(policy, reference)) for weight, loss in self.losses]
        total = parts[0][0] * parts[0][1].losses
        for weight, part in parts[1:]:
            total = total + weight * part.losses
        return PairLoss(total, parts[0][1].chosen_rewards, parts[0][1].rejected_rewards)
