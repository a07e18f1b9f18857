"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, Eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t,    A_t = sum_k (gamma lambda)^k delta_{t+k}

V_t is the value before token t is drawn, and 0 behind the last token of a completion. The returns
A_t + V_t, which the value model learns, are taken before the advantages are whitened.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class GAE(TokenMethod):
    """gamma 1, lambda 0.95 and whitening are Tülu 3's (arXiv:2411.15124, Table 21).

    Tülu 3 whitens each process's tokens by themselves; here it is the global batch, whatever the
    number of processes.
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True

    def __post_init__(self) -> None:
        checked_share("gamma", self.gamma)
        checked_share("lam", self.lam)

    def __call__(
        self,
        rewards: torch.Tensor,
        tokens: torch.Tensor,
        values: torch.Tensor | None = None,
        reduce: Reduce = alone,
    ) -> Credit:
        if values is None:
            raise ValueError(f"{type(self).__name__} needs the values of a value model")
        advantages = self.estimate(rewards, tokens, values)
        returns = advantages + values
        return Credit(whiten(advantages, reduce) if self.whiten else advantages, returns)

    def estimate(
        self, rewards: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Advantages before whitening, `[K]`."""
        now = to_rows(values, tokens)
        after = torch.nn.functional.pad(now[:, 1:], (0, 1))
        deltas = to_rows(rewards, tokens) + self.gamma * after - now
        return from_rows(discounted(deltas, self.gamma * self.lam), tokens)
