"""DAPO: the higher upper clip and the mean over all tokens, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.losses.base import TokenLogps, num_items, token_weights
from posttrain.losses.dapo import DAPO

SEGMENT, TOKENS = torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1])


def test_clip_higher_and_token_mean() -> None:
    ratios, advantages = torch.tensor([1.5, 1.25, 0.5, 0.7]), torch.tensor([1.0, 1.0, 1.0, -1.0])
    loss = DAPO()
    losses = loss(TokenLogps(ratios.log(), torch.zeros(4)), advantages)
    assert losses.tolist() == pytest.approx([-1.28, -1.25, -0.5, 0.8])
    weights = token_weights(TOKENS, SEGMENT, loss.reduction)
    total = (losses * weights).sum() / num_items(TOKENS, loss.reduction)
    assert total.item() == pytest.approx((-1.28 - 1.25 - 0.5 + 0.8) / 4)
