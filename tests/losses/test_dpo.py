"""DPO against hand-worked values; see also tests/trainers/test_dpo.py for TRL as the oracle."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.dpo import DPO


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    return PairLogps(
        torch.tensor([chosen], requires_grad=True),
        torch.tensor([rejected], requires_grad=True),
        *(torch.tensor([n]) for n in tokens),
    )


ZERO = pair(0.0, 0.0)


def test_plain() -> None:
    # log-ratios 0.2 + 0.4 + 0.0 and -0.1 - 0.3: -log sigmoid(0.1 * (0.6 + 0.4))
    out = DPO(beta=0.1)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.644397, abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(0.06)
    assert out.rejected_rewards.item() == pytest.approx(-0.04)


def test_length_normalised() -> None:
    # -log sigmoid(5 * (0.6 / 3 + 0.4 / 2)) = -log sigmoid(2)
    out = DPO(beta=5, length_normalise=True)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.126928, abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(1.0)
    assert out.rejected_rewards.item() == pytest.approx(-1.0)


def test_only_the_difference_to_the_reference_counts() -> None:
    out = DPO(beta=0.1)(pair(-9.4, -20.4), pair(-10.0, -20.0))
    assert out.losses.item() == pytest.approx(0.644397, abs=1e-5)


def test_label_smoothing() -> None:
    # 0.9 * -log sigmoid(0.1) + 0.1 * -log sigmoid(-0.1) = 0.644397 + 0.1 * 0.1
    out = DPO(beta=0.1, label_smoothing=0.1)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.654397, abs=1e-6)


def test_gradient_raises_the_chosen_and_lowers_the_rejected() -> None:
    policy = pair(0.6, -0.4)
    DPO(beta=0.1)(policy, ZERO).losses.sum().backward()
    slope = 0.1 / (1 + math.exp(0.1))  # beta * sigmoid(-margin)
    assert policy.chosen.grad.item() == pytest.approx(-slope)
    assert policy.rejected.grad.item() == pytest.approx(slope)


def test_equal_answers_give_log_2_and_no_gradient_in_the_weights() -> None:
    weight = torch.tensor([1.5], requires_grad=True)
    policy = PairLogps(-2 * weight, -2 * weight, torch.tensor([3]), torch.tensor([3]))
    loss = DPO()(policy, pair(-2.0, -2.0)).losses
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert weight.grad.item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta": 0}, "DPO needs beta > 0"), ({"label_smoothing": 0.5}, "allowed is 0 <= x < 0.5")],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        preference_loss({"name": "dpo", **options})
