"""Bradley-Terry reward-model loss (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1).

loss = -log sigmoid(r_chosen - r_rejected)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def bradley_terry(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Loss per pair.

    Args:
        chosen, rejected: `[B]` scores of the two answers.

    Returns:
        `[B]`; log 2 where the scores are equal.
    """
    return -F.logsigmoid(chosen - rejected)
