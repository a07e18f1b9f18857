"""REINFORCE++ (Hu et al. 2025, arXiv:2501.03262): returns, normalised over the global batch.

    A_t = sum of gamma^k r_{t+k} over what follows,    normalised by mean and std of all tokens

There is no value model and no group: one completion per prompt is enough. The paper's rewards
carry the KL at every token (k1). With several completions per prompt see
`reinforce_plus_plus_baseline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from posttrain.advantages.base import (
    Credit,
    Reduce,
    TokenMethod,
    alone,
    checked_share,
    discounted,
    from_rows,
    to_rows,
    whiten,
)


@dataclass(frozen=True)
class ReinforcePlusPlus(TokenMethod):
    """gamma 1 is the paper's."""

    needs_values: ClassVar[bool] = False

    gamma: float = 1.0

    def __post_init__(self) -> None:
        checked_share("gamma", self.gamma)

    def __call__(
        self,
        rewards: torch.Tensor,
        tokens: torch.Tensor,
        values: torch.Tensor | None = None,
        reduce: Reduce = alone,
    ) -> Credit:
        returns = from_rows(discounted(to_rows(rewards, tokens), self.gamma), tokens)
        return Credit(whiten(returns, reduce))
