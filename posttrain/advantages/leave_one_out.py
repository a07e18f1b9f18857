"""Leave-one-out advantages (RLOO: Ahmadian et al. 2024, arXiv:2402.14740).

    A_i = r_i - mean of the other G - 1 rewards of the group

Unlike the group's own mean, that baseline does not depend on the completion it is for, so the
gradient stays unbiased. The paper's rewards carry the KL: see `advantages.base.penalised`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.advantages.base import GroupMethod, Reduce, alone, without_spread


@dataclass(frozen=True)
class LeaveOneOut(GroupMethod):
    """Equal rewards give exact zeros."""

    def __call__(self, rewards: torch.Tensor, reduce: Reduce = alone) -> torch.Tensor:
        """See `GroupMethod`.

        Raises:
            ValueError: groups of one, which leave nobody to compare with.
        """
        size = rewards.shape[1]
        if size < 2:
            raise ValueError(f"leave_one_out needs num_generations of 2 or more, got {size}")
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return (centred * size / (size - 1)).masked_fill(without_spread(rewards), 0.0)
