"""APO-zero, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.apo_zero import APOZero
from posttrain.losses.base import PairLogps


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_value_and_gradient() -> None:
    # 1 - sigmoid(0.5 * 0.6) + sigmoid(0.5 * -0.4) = 0.425557 + 0.450166
    policy = pair(0.6, -0.4)
    out = APOZero(beta=0.5)(policy, ZERO)
    out.losses.sum().backward()
    assert out.losses.item() == pytest.approx(0.875724, abs=1e-6)
    assert policy.chosen.grad.item() == pytest.approx(-0.5 * 0.425557 * 0.574443, abs=1e-6)
    assert policy.rejected.grad.item() == pytest.approx(0.5 * 0.450166 * 0.549834, abs=1e-6)
    assert out.rejected_rewards.item() == pytest.approx(-0.2)


def test_each_answer_by_itself() -> None:
    # the chosen's gradient does not depend on the rejected
    grads = []
    for rejected in (-5.0, 5.0):
        policy = pair(1.0, rejected)
        APOZero()(policy, ZERO).losses.sum().backward()
        grads.append(policy.chosen.grad.item())
    assert grads[0] == grads[1] < 0


def test_at_the_reference() -> None:
    assert APOZero()(ZERO, ZERO).losses.item() == pytest.approx(1.0)
    far = APOZero(beta=1.0)(pair(50.0, -50.0), ZERO).losses.item()
    assert far == pytest.approx(2 / (1 + math.exp(50)))


def test_beta_out_of_range() -> None:
    with pytest.raises(RecipeError, match="APO-zero needs beta > 0"):
        preference_loss({"name": "apo_zero", "beta": 0})
