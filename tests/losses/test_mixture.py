"""Weighted sums of preference losses, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.mixture import Mixture


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


RPO = {
    "name": "mixture",
    "losses": [
        {"name": "dpo", "weight": 0.8, "beta": 0.1},
        {"name": "nll", "weight": 0.2},
    ],
}


def test_value_and_gradient() -> None:
    policy = pair(-6.0, -7.0)
    out = preference_loss(RPO)(policy, pair(-6.6, -6.6))
    out.losses.sum().backward()
    # 0.8 * -log sigmoid(0.1) + 0.2 * 6 / 3
    assert out.losses.item() == pytest.approx(0.8 * 0.644397 + 0.4, abs=1e-6)
    slope = 0.1 / (1 + 2.718281828**0.1)
    assert policy.chosen.grad.item() == pytest.approx(-0.8 * slope - 0.2 / 3)
    # the rewards are those of the first loss
    assert out.chosen_rewards.item() == pytest.approx(0.06)
    assert out.rejected_rewards.item() == pytest.approx(-0.04)


def test_it_needs_what_its_losses_need() -> None:
    assert preference_loss(RPO).needs_reference
    both = preference_loss({"name": "mixture", "losses": ["simpo", "nll"]})
    assert [both.needs_reference, both.needs_shared, both.needs_collision] == [False] * 3
    assert [weight for weight, _ in both.losses] == [1.0, 1.0]
    deep = preference_loss(
        {"name": "mixture", "losses": [RPO, {"name": "ld_dpo"}, {"name": "wpo", "weight": 2}]}
    )
    assert [deep.needs_reference, deep.needs_shared, deep.needs_collision] == [True] * 3


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (None, "losses must be a list"),
        ("dpo", "losses must be a list"),
        ([], "name at least one"),
        ([{"name": "dpo", "weight": 0}], "a mixture needs weight > 0"),
        ([{"name": "dpo", "weight": "much"}], "weight must be a number"),
        ([{"name": "dpoo"}], "unknown preference loss 'dpoo'; did you mean 'dpo'"),
        ([{"name": "nll", "beta": 1}], "preference loss 'nll' has no option 'beta'"),
        ([7], "7 is no loss"),
    ],
)
def test_mistakes(losses: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        preference_loss({"name": "mixture", "losses": losses})


def test_the_class_takes_built_losses() -> None:
    one = Mixture([(2.0, preference_loss("dpo"))])
    assert one(ZERO, ZERO).losses.item() == pytest.approx(2 * 0.693147, abs=1e-6)
