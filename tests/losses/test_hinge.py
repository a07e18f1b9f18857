"""The hinge, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.hinge import Hinge


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_inside_the_margin() -> None:
    # 1 - 0.5 * (0.6 + 0.4)
    policy = pair(0.6, -0.4)
    out = Hinge(beta=0.5)(policy, ZERO)
    out.losses.sum().backward()
    assert out.losses.item() == pytest.approx(0.5)
    assert policy.chosen.grad.item() == pytest.approx(-0.5)
    assert policy.rejected.grad.item() == pytest.approx(0.5)
    assert out.chosen_rewards.item() == pytest.approx(0.3)


def test_a_pair_that_is_far_enough_apart_is_left_alone() -> None:
    policy = pair(3.0, -2.0)
    loss = Hinge(beta=0.5)(policy, ZERO).losses
    loss.sum().backward()
    assert loss.item() == 0.0
    assert policy.chosen.grad.item() == policy.rejected.grad.item() == 0.0


def test_length_normalised() -> None:
    # 1 - 2 * (0.6 / 3 + 0.4 / 2)
    out = Hinge(beta=2.0, length_normalise=True)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.2, abs=1e-6)


def test_beta_out_of_range() -> None:
    with pytest.raises(RecipeError, match="hinge needs beta > 0"):
        preference_loss({"name": "hinge", "beta": -1})
