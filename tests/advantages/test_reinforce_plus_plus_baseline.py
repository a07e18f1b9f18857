"""REINFORCE++ with a baseline, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline

REWARDS = torch.tensor([[1.0, 0.0], [4.0, 1.0]])


def test_groups_are_centred_and_the_batch_is_scaled() -> None:
    # centred .5, -.5, 1.5, -1.5: mean 0, n - 1 variance 5 / 3
    out = ReinforcePlusPlusBaseline()(REWARDS)
    root = (5 / 3) ** 0.5
    assert out.flatten().tolist() == pytest.approx(
        [0.5 / root, -0.5 / root, 1.5 / root, -1.5 / root]
    )


def test_an_equal_group_teaches_exactly_nothing_and_counts() -> None:
    # centred .5, -.5, 0, 0: variance .5 / 3
    out = ReinforcePlusPlusBaseline()(torch.tensor([[1.0, 0.0], [0.1, 0.1]]))
    root = (0.5 / 3) ** 0.5
    assert out[0].tolist() == pytest.approx([0.5 / root, -0.5 / root])
    assert out[1].tolist() == [0.0, 0.0]


def test_the_batch_spans_all_processes() -> None:
    total = torch.tensor([4.0, 0.0, 5.0], dtype=torch.float64)
    part = ReinforcePlusPlusBaseline()(REWARDS[:1], lambda _: total)
    assert part.tolist() == ReinforcePlusPlusBaseline()(REWARDS)[:1].tolist()
