"""The reward-model loss, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.losses.bradley_terry import bradley_terry


def test_values() -> None:
    losses = bradley_terry(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0.0, 2.0, 3.0]))
    # log(1 + e^-1), log(1 + e^2), log 2
    assert losses.tolist() == pytest.approx([0.313262, 2.126928, math.log(2)], abs=1e-6)


def test_gradient_is_the_probability_of_the_wrong_order() -> None:
    chosen = torch.tensor([1.0], requires_grad=True)
    rejected = torch.tensor([0.0], requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()
    assert chosen.grad.item() == pytest.approx(-1 / (1 + math.e))
    assert rejected.grad.item() == pytest.approx(1 / (1 + math.e))


def test_far_apart_scores_stay_finite() -> None:
    assert bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0
