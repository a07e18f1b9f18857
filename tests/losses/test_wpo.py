"""WPO, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.dpo import DPO
from posttrain.losses.wpo import WPO


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_weight_of_token_probabilities() -> None:
    # averages -0.5 and -1: exp(-1.5) times DPO's loss
    policy, reference = pair(-1.5, -2.0), pair(-2.1, -1.6)
    out = WPO(beta=0.1, alignment="none")(policy, reference)
    assert out.losses.item() == pytest.approx(math.exp(-1.5) * 0.644397, abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(0.06)


def test_sampled_alignment() -> None:
    # log sum p^2 per token: -0.75 on average in both answers, so the weight is exp(-1.5 + 1.5)
    policy = replace(
        pair(-1.5, -2.0),
        chosen_collision=torch.tensor([-2.25]),
        rejected_collision=torch.tensor([-1.5]),
    )
    assert WPO()(policy, pair(-2.1, -1.6)).losses.item() == pytest.approx(0.644397, abs=1e-6)


def test_weights_are_bounded_unless_they_are_not() -> None:
    policy = replace(
        pair(0.0, 0.0), chosen_collision=torch.tensor([-3.0]), rejected_collision=torch.zeros(1)
    )
    assert WPO()(policy, ZERO).losses.item() == pytest.approx(math.log(2))
    free = WPO(max_weight=None)(policy, ZERO).losses.item()
    assert free == pytest.approx(math.e * math.log(2))


def test_the_gradient_does_not_go_through_the_weight() -> None:
    policy, plain, reference = pair(-1.5, -2.0), pair(-1.5, -2.0), pair(-2.1, -1.6)
    WPO(alignment="none")(policy, reference).losses.sum().backward()
    DPO()(plain, reference).losses.sum().backward()
    expected = math.exp(-1.5) * plain.chosen.grad.item()
    assert policy.chosen.grad.item() == pytest.approx(expected)


def test_what_it_asks_for() -> None:
    assert WPO().needs_collision
    assert not WPO(alignment="none").needs_collision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": "greedy"}, "allowed are sampled, none"),
        ({"max_weight": 0}, "WPO needs max_weight > 0 or null"),
        ({"beta": 0}, "beta > 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        preference_loss({"name": "wpo", **options})
