"""Dr. GRPO (Liu et al. 2025, arXiv:2503.20783, section 3.2): GRPO without its two biases.

A loss averaged over each completion's own tokens is kinder to long wrong answers than to short
ones; here every completion is divided by the same constant, the length it may have. The other
bias, the division by a group's deviation, goes with `advantage: {name: group, scale: none}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from posttrain.losses.ppo import PPO


@dataclass(frozen=True)
class DrGRPO(PPO):
    """The clipped surrogate under the reduction `max_length`; the paper has no KL term."""

    reduction: ClassVar[str] = "max_length"
