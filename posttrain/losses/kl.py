"""Estimators of KL(pi || ref) from sampled tokens (Schulman 2020, "Approximating KL divergence").

With d = log pi - log ref of a token that pi drew:

    k1 = d                  unbiased, of either sign
    k2 = d^2 / 2            biased, never negative
    k3 = exp(-d) - 1 + d    unbiased, never negative (GRPO, arXiv:2402.03300, Eq. 4)

In the reward, k1 is what RLHF has used since Ziegler et al. 2019 (arXiv:1909.08593), Tülu 3
included. In the loss what counts is the gradient: that of k2, d grad log pi, is the KL's own on
policy, that of k3 is close to it where d is small, and that of k1 is zero on average.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

LIMIT = 40.0  # Tülu 3.1's: one absurd token must not overflow the exponential


def k1(d: torch.Tensor) -> torch.Tensor:
    """`[K]` log-ratios -> `[K]`."""
    return d


def k2(d: torch.Tensor) -> torch.Tensor:
    """`[K]` log-ratios -> `[K]`."""
    return d.square() / 2


def k3(d: torch.Tensor) -> torch.Tensor:
    """`[K]` log-ratios -> `[K]`, those beyond +-40 as if they were there."""
    d = d.clamp(-LIMIT, LIMIT)
    return torch.expm1(-d) + d


KL_ESTIMATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def checked_estimator(name: str) -> None:
    """Refuse a name that is no estimator's.

    Raises:
        ValueError: naming the option.
    """
    if name not in KL_ESTIMATORS:
        raise ValueError(f"kl: got {name!r}; allowed are {', '.join(KL_ESTIMATORS)}")
