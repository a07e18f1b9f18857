"""The negative log-likelihood of the chosen answer, to be mixed in (RPO).

    loss = -log pi(chosen) / tokens of chosen

Iterative RPO (Pang et al. 2024, arXiv:2404.19733, Eq. 1) adds it to DPO to keep the chosen answers
likely: `{name: mixture, losses: [{name: dpo}, {name: nll, weight: 1.0}]}`. `per_token: false` takes
the sum, as RPO-type losses with a likelihood per sequence do.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.losses.base import PairLogps, PairLoss, PreferenceLoss, log_ratios, rewarded


@dataclass(frozen=True)
class NLL(PreferenceLoss):
    """Alone it is SFT on the chosen answers, each of which counts alike."""

    per_token: bool = True
    needs_reference = False

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        chosen, rejected = log_ratios(policy, None, self.per_token)
        return rewarded(-chosen, chosen, rejected, 1.0)
