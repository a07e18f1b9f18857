"""REINFORCE++, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages import advantage
from posttrain.advantages.base import token_rewards
from posttrain.advantages.reinforce_plus_plus import ReinforcePlusPlus
from posttrain.errors import RecipeError


def test_two_completions() -> None:
    # KL .2 per token of a right answer of two tokens, and a wrong one of one token:
    # returns 1 - .2 * 2, 1 - .2 and 0 - .2; mean .4, squares .04 + .16 + .36 = .56, / 2 = .28
    tokens = torch.tensor([2, 1])
    rewards = token_rewards(torch.tensor([1.0, 0.0]), tokens, torch.full((3,), 0.2), 1.0)
    credit = ReinforcePlusPlus()(rewards, tokens)
    root = 0.28**0.5
    assert credit.advantages.tolist() == pytest.approx([0.2 / root, 0.4 / root, -0.6 / root])
    assert credit.returns is None


def test_a_discount() -> None:
    # the early token's return is half of the late one's: 1 and 2 whiten to -+ 1 / sqrt 2
    credit = ReinforcePlusPlus(gamma=0.5)(torch.tensor([0.0, 2.0]), torch.tensor([2]))
    assert credit.advantages.tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])


def test_the_batch_spans_all_processes() -> None:
    rewards = torch.tensor([1.0, 0.0, 3.0])
    total = torch.tensor([3.0, 4.0, 10.0], dtype=torch.float64)
    whole = ReinforcePlusPlus()(rewards, torch.tensor([1, 1, 1])).advantages
    part = ReinforcePlusPlus()(rewards[:1], torch.tensor([1]), reduce=lambda _: total).advantages
    assert part.tolist() == pytest.approx(whole[:1].tolist())


def test_gamma_out_of_range() -> None:
    with pytest.raises(RecipeError, match="gamma: got -1; allowed is 0 <= x <= 1"):
        advantage({"name": "reinforce_plus_plus", "gamma": -1})
