"""The clipped surrogate and its KL term, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps
from posttrain.losses.grpo import GRPO

OLD = torch.tensor([-1.0, -2.0, -3.0])


def logps(ratios: list[float], reference: torch.Tensor | None = None) -> TokenLogps:
    policy = (OLD + torch.tensor(ratios).log()).requires_grad_()
    return TokenLogps(policy, OLD, reference)


def test_clipping() -> None:
    losses = GRPO(epsilon=0.2)(logps([1.5, 0.5, 1.1]), torch.tensor([1.0, 1.0, -1.0]), 0.0)
    assert losses.tolist() == pytest.approx([-1.2, -0.5, 1.1], abs=1e-6)
    assert losses.mean().item() == pytest.approx(-0.2, abs=1e-6)


def test_a_clipped_token_has_no_gradient_on_the_side_that_gained() -> None:
    batch = logps([1.5, 0.5, 1.5])
    GRPO()(batch, torch.tensor([1.0, 1.0, -1.0]), 0.0).sum().backward()
    # ratio 1.5 with A = 1 is clipped; with A = -1 it is not: the policy must still come back
    assert batch.policy.grad.tolist() == pytest.approx([0.0, -0.5, 1.5], abs=1e-6)


def test_the_upper_side_can_be_opened() -> None:
    losses = GRPO(epsilon=0.2, epsilon_high=0.4)(logps([1.5, 1.3, 0.5]), torch.ones(3), 0.0)
    assert losses.tolist() == pytest.approx([-1.4, -1.3, -0.5], abs=1e-6)


def test_kl_of_log_ratio_03() -> None:
    # exp(-0.3) - 1 + 0.3 = 0.040818, whatever the advantage
    reference = OLD - 0.3
    losses = GRPO()(logps([1.0] * 3, reference), torch.zeros(3), 2.0)
    assert losses.tolist() == pytest.approx([2 * 0.040818] * 3, abs=1e-5)


def test_kl_pulls_towards_the_reference_and_never_below_zero() -> None:
    reference = OLD + torch.tensor([0.5, -0.5, 0.0])
    batch = logps([1.0] * 3, reference)
    losses = GRPO()(batch, torch.zeros(3), 1.0)
    losses.sum().backward()
    assert (losses[:2] > 0).all()
    assert losses[2] == 0
    # d/dlogp = 1 - exp(reference - policy)
    expected = [1 - math.exp(0.5), 1 - math.exp(-0.5), 0.0]
    assert batch.policy.grad.tolist() == pytest.approx(expected, abs=1e-6)


def test_one_absurd_token_does_not_overflow() -> None:
    losses = GRPO()(logps([1.0] * 3, OLD + 200), torch.zeros(3), 1e-6)
    assert torch.isfinite(losses).all()


def test_on_policy_gradient_is_the_advantage() -> None:
    batch = logps([1.0] * 3)
    GRPO()(batch, torch.tensor([2.0, -1.0, 0.0]), 0.0).sum().backward()
    assert batch.policy.grad.tolist() == pytest.approx([-2.0, 1.0, 0.0])


def test_no_signal_without_advantage_and_kl() -> None:
    batch = logps([1.0, 1.1, 0.9], OLD - 1)
    losses = GRPO()(batch, torch.zeros(3), 0.0)
    losses.sum().backward()
    assert losses.abs().sum() == 0
    assert batch.policy.grad.abs().sum() == 0


def test_epsilon_out_of_range() -> None:
    with pytest.raises(RecipeError, match="GRPO needs epsilon > 0"):
        policy_loss({"name": "grpo", "epsilon": -0.1})
