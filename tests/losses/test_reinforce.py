"""REINFORCE, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.losses.base import TokenLogps
from posttrain.losses.reinforce import Reinforce


def test_value_and_gradient() -> None:
    policy = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    advantages = torch.tensor([0.5, -1.0, 0.0])
    losses = Reinforce()(TokenLogps(policy, policy.detach() + 7), advantages)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.5, -2.0, 0.0])
    assert policy.grad.tolist() == pytest.approx([-0.5, 1.0, 0.0])


def test_it_equals_ppo_in_its_gradient_where_the_policy_has_not_moved() -> None:
    from posttrain.losses.ppo import PPO

    grads = []
    for loss in (Reinforce(), PPO()):
        policy = torch.tensor([-1.0, -2.0], requires_grad=True)
        loss(TokenLogps(policy, policy.detach()), torch.tensor([2.0, -3.0])).sum().backward()
        grads.append(policy.grad.tolist())
    assert grads[0] == pytest.approx(grads[1])
