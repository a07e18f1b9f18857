"""Leave-one-out advantages, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages.leave_one_out import LeaveOneOut


def test_two_right_of_four() -> None:
    # against the mean of the other three: 1 - 1/3 and 0 - 2/3
    out = LeaveOneOut()(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    assert out[0].tolist() == pytest.approx([0.666667, -0.666667, -0.666667, 0.666667], abs=1e-6)


def test_each_is_compared_with_the_others() -> None:
    rewards = torch.tensor([[3.0, 1.0, 8.0], [0.5, 0.25, -2.0]])
    out = LeaveOneOut()(rewards)
    for p, group in enumerate(rewards.tolist()):
        for g, reward in enumerate(group):
            others = [r for i, r in enumerate(group) if i != g]
            assert out[p, g].item() == pytest.approx(reward - sum(others) / 2, abs=1e-6)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -10.0])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_equal_rewards_teach_exactly_nothing(value: float, size: int) -> None:
    assert LeaveOneOut()(torch.full((2, size), value)).tolist() == [[0.0] * size] * 2


def test_a_group_of_one() -> None:
    with pytest.raises(ValueError, match="num_generations of 2 or more, got 1"):
        LeaveOneOut()(torch.ones(3, 1))
