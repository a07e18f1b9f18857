"""GAE, worked by hand and against the recursion it is defined by."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages import advantage
from posttrain.advantages.gae import GAE
from posttrain.errors import RecipeError

REWARDS = torch.tensor([0.0, 0.0, 0.0, 1.0])
VALUES = torch.tensor([0.1, 0.2, 0.3, 0.4])
FOUR = torch.tensor([4])


def recursion(rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float) -> list[float]:
    """The definition, from the last token to the first."""
    out: list[float] = []
    later = after = 0.0
    for r, v in zip(reversed(rewards.tolist()), reversed(values.tolist()), strict=True):
        later = r + gamma * after - v + gamma * lam * later
        after = v
        out.insert(0, later)
    return out


def test_four_tokens() -> None:
    credit = GAE(whiten=False)(REWARDS, FOUR, VALUES)
    assert credit.advantages.tolist() == pytest.approx([0.799675, 0.7365, 0.67, 0.6])
    assert credit.returns.tolist() == pytest.approx([0.899675, 0.9365, 0.97, 1.0])


def test_whitened_advantages_leave_the_returns_alone() -> None:
    credit = GAE()(REWARDS, FOUR, VALUES)
    assert credit.advantages.tolist() == pytest.approx(
        [1.141836, 0.406744, -0.367038, -1.181545], abs=1e-5
    )
    assert credit.returns.tolist() == pytest.approx([0.899675, 0.9365, 0.97, 1.0])


def test_without_values_and_with_lambda_1_it_is_the_return() -> None:
    credit = GAE(lam=1.0, whiten=False)(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3]), torch.zeros(3)
    )
    assert credit.advantages.tolist() == [6.0, 5.0, 3.0]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_ragged_completions_do_not_see_each_other(gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([5, 1, 0, 17, 2])
    rewards, values = torch.randn(2, int(tokens.sum()), generator=generator)
    credit = GAE(gamma, lam, whiten=False)(rewards, tokens, values)
    expected = [
        a
        for r, v in zip(rewards.split(tokens.tolist()), values.split(tokens.tolist()), strict=True)
        for a in recursion(r, v, gamma, lam)
    ]
    assert credit.advantages.tolist() == pytest.approx(expected, abs=1e-5)


def test_2000_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(2, 2000, generator=generator)
    credit = GAE(whiten=False)(rewards, torch.tensor([2000]), values)
    expected = recursion(rewards, values, 1.0, 0.95)
    assert credit.advantages.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_batch_spans_all_processes() -> None:
    tokens = torch.tensor([3, 2])
    rewards, values = torch.tensor([[1.0, 0.0, 2.0, 0.5, 4.0], [0.3, 0.1, 0.9, 0.2, 0.5]])
    whole = GAE()(rewards, tokens, values).advantages
    raw = GAE(whiten=False)(rewards, tokens, values).advantages.double()
    total = torch.stack([raw.new_tensor(5), raw.sum(), (raw * raw).sum()])
    part = GAE()(rewards[:3], tokens[:1], values[:3], lambda _: total).advantages
    assert part.tolist() == pytest.approx(whole[:3].tolist(), abs=1e-6)


def test_user_mistakes() -> None:
    with pytest.raises(RecipeError, match="lam: got 1"):
        advantage({"name": "gae", "lam": 1.5})
    with pytest.raises(ValueError, match="GAE needs the values of a value model"):
        GAE()(REWARDS, FOUR)
