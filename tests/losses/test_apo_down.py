"""APO-down, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.apo_down import APODown
from posttrain.losses.base import PairLogps


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_value_and_gradient() -> None:
    # sigmoid(0.3) + 1 - sigmoid(0.5 * (0.6 + 0.4)) = 0.574443 + 0.377541
    policy = pair(0.6, -0.4)
    out = APODown(beta=0.5)(policy, ZERO)
    out.losses.sum().backward()
    assert out.losses.item() == pytest.approx(0.951984, abs=1e-6)
    # 0.5 * (0.574443 * 0.425557 - 0.377541 * 0.622459)
    assert policy.chosen.grad.item() == pytest.approx(0.004728, abs=1e-6)
    assert policy.rejected.grad.item() == pytest.approx(0.5 * 0.377541 * 0.622459, abs=1e-6)


def test_a_clear_pair_takes_the_chosen_answer_down_too() -> None:
    policy = pair(0.0, -20.0)
    APODown(beta=1.0)(policy, ZERO).losses.sum().backward()
    assert policy.chosen.grad.item() == pytest.approx(0.25, abs=1e-6)
    assert policy.rejected.grad.item() == pytest.approx(0.0, abs=1e-6)


def test_beta_out_of_range() -> None:
    with pytest.raises(RecipeError, match="APO-down needs beta > 0"):
        preference_loss({"name": "apo_down", "beta": 0})
