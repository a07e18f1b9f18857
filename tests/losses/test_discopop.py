"""DiscoPOP, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.discopop import DiscoPOP


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_value() -> None:
    # z = 0.05, share sigmoid(1) = 0.731059, -log sigmoid(0.05) = 0.668460, exp(-0.05) = 0.951229:
    # 0.268941 * 0.668460 + 0.731059 * 0.951229
    out = DiscoPOP(beta=0.05, tau=0.05)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.875181, abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(0.03)


def test_equal_answers_are_halfway_between_the_two_losses() -> None:
    assert DiscoPOP()(ZERO, ZERO).losses.item() == pytest.approx((math.log(2) + 1) / 2)


def test_a_wrong_order_is_logistic_and_does_not_explode() -> None:
    # z = -50: share sigmoid(-1000) = 0, and the exponential of 50 must not come through
    out = DiscoPOP(beta=1.0, tau=0.05)(pair(-25.0, 25.0), ZERO)
    assert out.losses.item() == pytest.approx(50.0)


def test_tau_out_of_range() -> None:
    with pytest.raises(RecipeError, match="DiscoPOP needs tau > 0"):
        preference_loss({"name": "discopop", "tau": 0})
