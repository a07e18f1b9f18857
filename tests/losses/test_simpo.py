"""SimPO, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.simpo import SimPO


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_equal_averages_are_short_of_the_margin() -> None:
    # softplus(0.5)
    out = SimPO(beta=2.5, gamma=0.5)(pair(-3.0, -2.0), None)
    assert out.losses.item() == pytest.approx(0.974077, abs=1e-6)


def test_averages_and_no_reference() -> None:
    # averages -1 and -2: -log sigmoid(2 * 1 - 0.5)
    policy = pair(-3.0, -4.0)
    out = SimPO(beta=2.0, gamma=0.5)(policy, None)
    out.losses.sum().backward()
    assert out.losses.item() == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-6)
    slope = 2.0 / (1 + math.exp(1.5))
    assert policy.chosen.grad.item() == pytest.approx(-slope / 3)
    assert policy.rejected.grad.item() == pytest.approx(slope / 2)
    assert out.chosen_rewards.item() == pytest.approx(-2.0)
    assert out.rejected_rewards.item() == pytest.approx(-4.0)
    assert not SimPO.needs_reference


def test_the_length_of_an_answer_does_not_count() -> None:
    short = SimPO()(pair(-3.0, -4.0, (3, 2)), None).losses
    long = SimPO()(pair(-6.0, -8.0, (6, 4)), None).losses
    assert short.item() == pytest.approx(long.item())


def test_gamma_out_of_range() -> None:
    with pytest.raises(RecipeError, match="SimPO needs gamma >= 0"):
        preference_loss({"name": "simpo", "gamma": -0.1})
