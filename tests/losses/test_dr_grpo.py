"""Dr. GRPO: a constant denominator, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.losses.base import TokenLogps, num_items, token_weights
from posttrain.losses.dr_grpo import DrGRPO

SEGMENT, TOKENS = torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1])


def test_a_long_answer_is_not_let_off() -> None:
    """Two wrong answers of 3 and 1 tokens, of at most 10: each token weighs 1 / 20."""
    policy = torch.zeros(4, requires_grad=True)
    loss = DrGRPO()
    losses = loss(TokenLogps(policy, torch.zeros(4)), -torch.ones(4))
    weights = token_weights(TOKENS, SEGMENT, loss.reduction)
    total = (losses * weights).sum() / num_items(TOKENS, loss.reduction, 10)
    total.backward()
    assert total.item() == pytest.approx(4 / 20)
    assert policy.grad.tolist() == pytest.approx([1 / 20] * 4)
