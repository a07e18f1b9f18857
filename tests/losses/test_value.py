"""The clipped value loss, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import value_loss
from posttrain.losses.value import ValueLoss

OLD, RETURNS = torch.tensor([0.5, 1.9]), torch.tensor([0.0, 3.0])


def test_two_values() -> None:
    # V 1 -> max(1, .7^2) = 1; V 2 is within .2 of 1.9: (2 - 3)^2 = 1; halves
    losses = ValueLoss(coefficient=1.0)(torch.tensor([1.0, 2.0]), OLD, RETURNS)
    assert losses.tolist() == pytest.approx([0.5, 0.5])


def test_tulu_3s_coefficient() -> None:
    losses = ValueLoss()(torch.tensor([1.0, 2.0]), OLD, RETURNS)
    assert losses.tolist() == pytest.approx([0.05, 0.05])


def test_a_value_that_went_far_enough_has_no_gradient() -> None:
    # .5 -> .1 went .4 towards 0: (.3 - 0)^2 > .1^2, and flat; 1.9 -> 1 went away, and comes back
    values = torch.tensor([0.1, 1.0], requires_grad=True)
    losses = ValueLoss(coefficient=1.0)(values, OLD, RETURNS)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.045, 2.0])
    assert values.grad.tolist() == pytest.approx([0.0, -2.0])


def test_without_a_clip_it_is_half_the_squared_error() -> None:
    losses = ValueLoss(clip=None, coefficient=1.0)(torch.tensor([0.1, 1.0]), OLD, RETURNS)
    assert losses.tolist() == pytest.approx([0.005, 2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clip": 0}, "needs clip > 0 or null"), ({"coefficient": 0}, "above 0")],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        value_loss({"name": "clipped", **options})
