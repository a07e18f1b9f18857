"""SAPO's soft gate, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps
from posttrain.losses.sapo import SAPO


def test_values() -> None:
    # at ratio 1 the gate is 4 / tau / 2
    losses = SAPO()(TokenLogps(torch.zeros(3), torch.zeros(3)), torch.tensor([1.0, -1.0, 0.0]))
    assert losses.tolist() == pytest.approx([-2.0, 2 / 1.05, 0.0])
    losses = SAPO()(TokenLogps(torch.tensor([2.0]).log(), torch.zeros(1)), torch.ones(1))
    assert losses.item() == pytest.approx(-4 / (1 + math.exp(-1)))


def test_on_policy_the_gradient_is_that_of_reinforce_and_it_fades() -> None:
    policy = torch.tensor([1.0, 1.0, 4.0]).log().requires_grad_()
    SAPO()(TokenLogps(policy, torch.zeros(3)), torch.tensor([1.0, -2.0, 1.0])).sum().backward()
    gate = 1 / (1 + math.exp(-3))
    assert policy.grad.tolist() == pytest.approx([-1.0, 2.0, -4 * gate * (1 - gate) * 4])


def test_a_temperature_out_of_range() -> None:
    with pytest.raises(RecipeError, match="temperature_negative: got 0; SAPO needs it above 0"):
        policy_loss({"name": "sapo", "temperature_negative": 0})
