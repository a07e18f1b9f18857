"""GSPO: one ratio per completion, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps, num_items, token_weights
from posttrain.losses.gspo import GSPO

SEGMENT, TOKENS = torch.tensor([0, 0, 0, 2]), torch.tensor([3, 0, 1])
OLD = torch.tensor([-1.0, -2.0, -3.0, -4.0])
GAPS = torch.tensor([0.3, -0.6, 0.6, -0.5])  # means .1 and -.5


def logps() -> TokenLogps:
    return TokenLogps((OLD + GAPS).requires_grad_(), OLD, segment=SEGMENT, tokens=TOKENS)


def test_the_ratio_is_the_geometric_mean() -> None:
    losses = GSPO(epsilon=0.5, epsilon_high=0.5)(logps(), torch.ones(4))
    assert losses.tolist() == pytest.approx([-math.exp(0.1)] * 3 + [-math.exp(-0.5)])


def test_a_completion_is_clipped_as_a_whole() -> None:
    batch, loss = logps(), GSPO()
    advantages = torch.tensor([1.0, 1.0, 1.0, 1.0])
    losses = loss(batch, advantages)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-1.0004] * 3 + [-math.exp(-0.5)])
    assert batch.policy.grad.tolist() == pytest.approx([0.0] * 3 + [-math.exp(-0.5)])
    assert loss.clipped(batch, advantages).tolist() == [True, True, True, False]


def test_the_gradient_is_that_of_the_ratio_of_the_sequence() -> None:
    batch, loss = logps(), GSPO(epsilon=0.5, epsilon_high=0.5)
    advantages = torch.tensor([2.0, 2.0, 2.0, -1.0])
    weights = token_weights(TOKENS, SEGMENT, loss.reduction)
    total = (loss(batch, advantages) * weights).sum() / num_items(TOKENS, loss.reduction)
    total.backward()
    policy = (OLD + GAPS).requires_grad_()
    first = ((policy - OLD)[:3].mean()).exp() * 2.0
    second = (policy - OLD)[3].exp() * -1.0
    expected = -(first + second) / 2
    expected.backward()
    assert total.item() == pytest.approx(expected.item())
    torch.testing.assert_close(batch.policy.grad, policy.grad)


def test_user_mistakes() -> None:
    with pytest.raises(RecipeError, match="GSPO needs epsilon > 0"):
        policy_loss({"name": "gspo", "epsilon": 0})
    with pytest.raises(ValueError, match="needs segment and tokens"):
        GSPO()(TokenLogps(OLD, OLD), torch.ones(4))
