"""The KL estimators, worked by hand and against the divergence they estimate."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.losses.base import TokenLogps
from posttrain.losses.kl import KL_ESTIMATORS, k1, k2, k3
from posttrain.losses.ppo import PPO


def test_a_log_ratio_of_03() -> None:
    d = torch.tensor([0.3, -0.3, 0.0])
    assert k1(d).tolist() == pytest.approx([0.3, -0.3, 0.0])
    assert k2(d).tolist() == pytest.approx([0.045, 0.045, 0.0])
    expected = [math.exp(-0.3) - 1 + 0.3, math.exp(0.3) - 1 - 0.3, 0.0]
    assert expected[0] == pytest.approx(0.040818, abs=1e-6)
    assert k3(d).tolist() == pytest.approx(expected)


def test_means_under_the_policy() -> None:
    """k1 and k3 are unbiased; k2 is so to second order only."""
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    d = (policy / reference).log()
    exact = (policy * d).sum().item()
    means = {name: (policy * kl(d)).sum().item() for name, kl in KL_ESTIMATORS.items()}
    assert means["k1"] == pytest.approx(exact)
    assert means["k3"] == pytest.approx(exact)
    assert means["k2"] == pytest.approx(exact, rel=0.1)
    assert means["k2"] != pytest.approx(exact, rel=1e-3)


def test_mean_gradients_in_the_loss() -> None:
    """Of the expected estimate through the sampled log-prob: k2 alone gives the KL's gradient."""
    logits = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64).log()
    policy = logits.log_softmax(-1)
    [exact] = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    grads = {}
    for name, kl in KL_ESTIMATORS.items():
        policy = logits.log_softmax(-1)
        [grads[name]] = torch.autograd.grad(
            (policy.exp().detach() * kl(policy - reference)).sum(), logits
        )
    assert exact.abs().max() > 0.05
    assert grads["k1"].tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert grads["k2"].tolist() == pytest.approx(exact.tolist())
    assert grads["k3"].tolist() != pytest.approx(exact.tolist(), rel=1e-2)


def test_one_absurd_token_does_not_overflow() -> None:
    assert torch.isfinite(k3(torch.tensor([-1e4, 1e4]))).all()


def test_weighed_by_the_ratio_old_samples_give_the_gradient_of_the_kl() -> None:
    """Tokens drawn by pi_old, which is not pi: `unbiased_kl` puts value and gradient right."""
    old = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64).log()
    logits = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    exact = (logits.softmax(-1) * (logits.log_softmax(-1) - reference)).sum()
    [gradient] = torch.autograd.grad(exact, logits)
    batch = TokenLogps(logits.log_softmax(-1), old.log(), reference)
    losses = PPO(unbiased_kl=True)(batch, torch.zeros(3), 1.0)
    estimate = (old * losses).sum()
    [ours] = torch.autograd.grad(estimate, logits)
    assert estimate.item() == pytest.approx(exact.item())
    assert ours.tolist() == pytest.approx(gradient.tolist())
