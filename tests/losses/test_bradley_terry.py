"""The reward-model loss, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import reward_loss
from posttrain.losses.bradley_terry import BradleyTerry, bradley_terry


def test_values() -> None:
    losses = bradley_terry(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0.0, 2.0, 3.0]))
    # log(1 + e^-1), log(1 + e^2), log 2
    assert losses.tolist() == pytest.approx([0.313262, 2.126928, math.log(2)], abs=1e-6)


def test_scores_of_the_summarisation_paper() -> None:
    # r_w 1.2, r_l 0.4: log(1 + e^-0.8)
    loss = bradley_terry(torch.tensor([1.2]), torch.tensor([0.4]))
    assert loss.item() == pytest.approx(0.371101, abs=1e-6)


def test_gradient_is_the_probability_of_the_wrong_order() -> None:
    chosen = torch.tensor([1.0], requires_grad=True)
    rejected = torch.tensor([0.0], requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()
    assert chosen.grad.item() == pytest.approx(-1 / (1 + math.e))
    assert rejected.grad.item() == pytest.approx(1 / (1 + math.e))


def test_far_apart_scores_stay_finite() -> None:
    assert bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0


def test_a_margin_is_taken_off_the_gap() -> None:
    scores = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    losses = BradleyTerry()(*scores, torch.tensor([1.0, 3.0]))
    # gaps 1 - 1 and 1 - 3: log 2, log(1 + e^2)
    assert losses.tolist() == pytest.approx([math.log(2), 2.126928], abs=1e-6)


def test_centring_adds_the_squared_sum() -> None:
    chosen, rejected = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])
    losses = BradleyTerry(center_rewards_coefficient=0.01)(chosen, rejected)
    # 0.313262 + 0.01 * 1, log 2 + 0.01 * 16
    assert losses.tolist() == pytest.approx([0.323262, 0.853147], abs=1e-6)


def test_centring_pulls_the_level_to_zero_and_leaves_the_gap() -> None:
    chosen = torch.tensor([5.0], requires_grad=True)
    rejected = torch.tensor([5.0], requires_grad=True)
    BradleyTerry(center_rewards_coefficient=0.01)(chosen, rejected).sum().backward()
    # -1/2 + 2c * 10, 1/2 + 2c * 10
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.3, 0.7))


@pytest.mark.parametrize(
    ("margin", "column", "needed"),
    [(None, "margin", False), (True, "margin", True), (False, None, False), ("gap", "gap", True)],
)
def test_where_margins_stand(margin: bool | str | None, column: str | None, needed: bool) -> None:
    loss = reward_loss({"name": "bradley_terry", "margin": margin})
    assert (loss.column, loss.needs_margin) == (column, needed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"center_rewards_coefficient": -1.0}, "allowed is a number >= 0"),
        ({"center_rewards_coefficient": math.nan}, "allowed is a number >= 0"),
        ({"margin": 0.5}, "got 0.5; allowed is true, false or the name of a column"),
        ({"margn": True}, "did you mean 'margin'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        reward_loss({"name": "bradley_terry", **options})
