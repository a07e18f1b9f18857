"""LD-DPO, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.dpo import DPO
from posttrain.losses.ld_dpo import LDDPO


def pair(chosen: list[float], rejected: list[float]) -> PairLogps:
    """Log-probs per token: sums, lengths, and the sums over the common length."""
    shared = min(len(chosen), len(rejected))
    sides = (chosen, rejected)
    return PairLogps(
        *(torch.tensor([sum(side)], requires_grad=True) for side in sides),
        *(torch.tensor([len(side)]) for side in sides),
        *(torch.tensor([sum(side[:shared])], requires_grad=True) for side in sides),
    )


# 0.2 + 0.4 within two tokens and 1.0 beyond, against -0.1 - 0.3
POLICY = pair([0.2, 0.4, 1.0], [-0.1, -0.3])
ZERO = pair([0.0] * 3, [0.0] * 2)


@pytest.mark.parametrize(("alpha", "difference"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_the_tail_counts_alpha(alpha: float, difference: float) -> None:
    out = LDDPO(beta=0.1, alpha=alpha)(POLICY, ZERO)
    assert out.losses.item() == pytest.approx(math.log1p(math.exp(-0.1 * difference)), abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(0.1 * (difference - 0.4))


def test_the_reference_is_treated_alike() -> None:
    out = LDDPO(beta=0.1, alpha=0.5)(POLICY, POLICY)
    assert out.losses.item() == pytest.approx(math.log(2))


def test_alpha_1_is_dpo() -> None:
    ours = LDDPO(beta=0.3, alpha=1.0)(POLICY, ZERO).losses
    assert ours.item() == pytest.approx(DPO(beta=0.3)(POLICY, ZERO).losses.item())


def test_gradient() -> None:
    policy = pair([0.2, 0.4, 1.0], [-0.1, -0.3])
    LDDPO(beta=0.1, alpha=0.25)(policy, ZERO).losses.sum().backward()
    slope = 0.1 / (1 + math.exp(0.1 * 1.25))
    # a token beyond the common length is in `chosen` only, one within it in both
    assert policy.chosen.grad.item() == pytest.approx(-0.25 * slope)
    assert policy.chosen_shared.grad.item() == pytest.approx(-0.75 * slope)


def test_alpha_out_of_range() -> None:
    with pytest.raises(RecipeError, match="allowed is 0 <= alpha <= 1"):
        preference_loss({"name": "ld_dpo", "alpha": 1.5})
