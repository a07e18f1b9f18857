"""DAPO (Yu et al. 2025, arXiv:2503.14476, Eq. 8): clip higher, and average over all tokens.

The upper bound is further off than the lower one, so that improbable tokens can still grow; every
token of the batch weighs alike, so that long completions count by their length. The paper has no
KL term; its filter of groups without a spread is the trainer's, its soft length penalty a reward.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.losses.ppo import PPO


@dataclass(frozen=True)
class DAPO(PPO):
    """epsilon 0.2 below and 0.28 above are the paper's."""

    epsilon_high: float | None = 0.28
