"""Group advantages, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages import advantage
from posttrain.advantages.group import GroupAdvantage
from posttrain.errors import RecipeError


def test_one_right_of_four() -> None:
    # mean 1/4, n - 1 deviation 1/2: (3/4) / (1/2) and (-1/4) / (1/2)
    out = GroupAdvantage()(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert out[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-6)


def test_trl_convention() -> None:
    out = GroupAdvantage(epsilon=1e-4)(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert out[0].tolist() == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=1e-5)


def test_without_scale() -> None:
    out = GroupAdvantage(scale="none")(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert out[0].tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_groups_do_not_mix_and_each_sums_to_zero() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5], [10.0, 20.0, 60.0]])
    out = GroupAdvantage()(rewards)
    assert out[1].tolist() == pytest.approx(GroupAdvantage()(rewards[1:])[0].tolist())
    assert out.sum(1).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert out.std(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3, 0.7, -10.0])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 16])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_teach_exactly_nothing(value: float, size: int, scale: str) -> None:
    out = GroupAdvantage(scale=scale)(torch.full((2, size), value))
    assert out.tolist() == [[0.0] * size] * 2


def test_an_unknown_scale() -> None:
    with pytest.raises(RecipeError, match="allowed are std, none"):
        advantage({"name": "group", "scale": "row"})
    assert advantage({"name": "group"}) == GroupAdvantage()


def test_the_deviation_of_the_batch() -> None:
    # all rewards 1, 0, 0, 0, 1, 1: mean 1/2, n - 1 variance 6/4 / 5 = 0.3
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    out = GroupAdvantage(scale="batch")(rewards)
    root = 0.3**0.5
    assert out[0].tolist() == pytest.approx([2 / 3 / root, -1 / 3 / root, -1 / 3 / root])
    assert GroupAdvantage(scale="batch")(torch.full((2, 3), 0.1)).tolist() == [[0.0] * 3] * 2


def test_the_batch_spans_all_processes() -> None:
    mine, theirs = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    other = torch.tensor([3.0, float(theirs.sum()), float((theirs**2).sum())])
    method = GroupAdvantage(scale="batch")
    both = method(torch.cat([mine, theirs]))
    assert method(mine, lambda sums: sums + other).tolist() == both[:1].tolist()


def test_it_says_that_it_is_a_group_method() -> None:
    assert not GroupAdvantage.per_token
    assert not GroupAdvantage.needs_values
