"""The negative log-likelihood of the chosen answer, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.losses.base import PairLogps
from posttrain.losses.nll import NLL


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_average() -> None:
    policy = pair(-6.0, -1.0)
    out = NLL()(policy, None)
    out.losses.sum().backward()
    assert out.losses.item() == pytest.approx(2.0)
    assert policy.chosen.grad.item() == pytest.approx(-1 / 3)
    assert policy.rejected.grad is None
    assert out.chosen_rewards.item() == pytest.approx(-2.0)
    assert out.rejected_rewards.item() == pytest.approx(-0.5)
    assert not NLL.needs_reference


def test_sum() -> None:
    assert NLL(per_token=False)(pair(-6.0, -1.0), None).losses.item() == pytest.approx(6.0)


def test_an_answer_without_a_trained_token_costs_nothing() -> None:
    assert NLL()(pair(0.0, -1.0, (0, 2)), ZERO).losses.item() == 0.0
