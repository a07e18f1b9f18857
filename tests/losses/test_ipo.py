"""IPO, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.ipo import IPO


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_of_averages() -> None:
    # 0.6 / 3 + 0.4 / 2 = 0.4, target 1 / (2 * 0.5) = 1: (0.4 - 1)^2
    out = IPO(beta=0.5)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.36)
    assert out.chosen_rewards.item() == pytest.approx(0.5 * 0.2)
    assert out.rejected_rewards.item() == pytest.approx(0.5 * -0.2)


def test_of_sums() -> None:
    out = IPO(beta=0.1, length_normalise=False)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx((1.0 - 5.0) ** 2)


def test_it_comes_back_from_beyond_the_target() -> None:
    policy = pair(6.0, -4.0)  # 2 + 2 = 4 > 1
    IPO(beta=0.5)(policy, ZERO).losses.sum().backward()
    # d loss / d chosen = 2 * (4 - 1) / 3 tokens: descent lowers the chosen again
    assert policy.chosen.grad.item() == pytest.approx(2.0)
    assert policy.rejected.grad.item() == pytest.approx(-3.0)


def test_at_the_target_nothing_moves() -> None:
    policy = pair(1.5, -1.0)
    loss = IPO(beta=0.5)(policy, ZERO).losses
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert policy.chosen.grad.item() == pytest.approx(0.0, abs=1e-6)


def test_beta_out_of_range() -> None:
    with pytest.raises(RecipeError, match="IPO needs beta > 0"):
        preference_loss({"name": "ipo", "beta": 0})
