"""CISPO: clipped weights, no token dropped; worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps
from posttrain.losses.cispo import CISPO

OLD = torch.tensor([-4.0, -2.0, -3.0])


def test_a_token_out_of_bounds_keeps_its_gradient() -> None:
    batch = TokenLogps((OLD + torch.tensor([9.0, 0.5, 1.0]).log()).requires_grad_(), OLD)
    advantages, loss = torch.tensor([1.0, 1.0, -2.0]), CISPO()
    losses = loss(batch, advantages)
    losses.sum().backward()
    expected = -torch.tensor([5.0, 0.5, 1.0]) * advantages
    assert batch.policy.grad.tolist() == pytest.approx(expected.tolist())
    assert losses.tolist() == pytest.approx((expected * batch.policy).tolist())
    assert loss.clipped(batch, advantages).tolist() == [True, False, False]


def test_a_bound_out_of_range() -> None:
    with pytest.raises(RecipeError, match="CISPO needs it above 0"):
        policy_loss({"name": "cispo", "epsilon_high": 0})
