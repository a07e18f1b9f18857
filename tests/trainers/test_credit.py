"""Credit over packed batches: hand-computed values, whatever the batches look like."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from posttrain.advantages import advantage
from posttrain.advantages.base import alone
from posttrain.generation.base import Completion
from posttrain.trainers.credit import credit_groups, credit_tokens, kl_per_completion
from posttrain.trainers.rollouts import Rollout, pack_answers

D = {(0, 0): [0.1, -0.2], (0, 1): [0.3], (1, 0): [0.0, 0.4, 0.2], (1, 1): [-0.1]}  # log-ratios


def batches(parts: list[list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Two groups of two completions, cut into micro-batches; the first token names its place."""
    groups = [
        Rollout(
            {"prompt_ids": [7, 8]},
            [Completion([1] * len(D[p, g]), True) for g in range(2)],
            torch.zeros(2),
            None,
            0,
            2 * p,
        )
        for p in range(2)
    ]
    made = []
    for part in parts:
        batch = pack_answers([(groups[p], g) for p, g in part])
        order = [x for number in batch["number"].tolist() if number >= 0
                 for x in D[divmod(number, 2)]]  # fmt: skip
        batch["old_logps"], batch["ref_logps"] = torch.tensor(order), torch.zeros(len(order))
        batch["old_values"] = torch.zeros(len(order))
        made.append(batch)
    return made


def told(made: list[dict[str, Any]], name: str = "advantages") -> dict[int, list[float]]:
    """Number of a completion -> what its tokens got."""
    out: dict[int, list[float]] = {}
    for batch in made:
        for i, number in enumerate(batch["number"].tolist()):
            if number >= 0:
                out[number] = batch[name][batch["segment"] == i].tolist()
    return out


ONE = [[(0, 0), (0, 1), (1, 0), (1, 1)]]
CUT = [[(1, 1), (0, 0)], [], [(1, 0), (0, 1)]]
REWARDS = torch.tensor([[1.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("parts", [ONE, CUT])
def test_kl_of_each_completion(parts: Any) -> None:
    sums = kl_per_completion(batches(parts), "k1", 4)
    assert sums.tolist() == pytest.approx([-0.1, 0.3, 0.6, -0.1])
    k2 = kl_per_completion(batches(parts), "k2", 4)
    assert k2.tolist() == pytest.approx([0.025, 0.045, 0.1, 0.005])


@pytest.mark.parametrize("parts", [ONE, CUT])
def test_tokens_get_what_follows_them(parts: Any) -> None:
    made = batches(parts)
    method = advantage({"name": "gae", "gamma": 1.0, "lam": 1.0, "whiten": False})
    credit_tokens(method, REWARDS, made, alone, "k1", 0.5)
    got = told(made)  # values are zero: the sum of -0.5 d over what follows, and the reward
    assert got[0] == pytest.approx([1.05, 1.1])
    assert got[1] == pytest.approx([-0.15])
    assert got[2] == pytest.approx([-0.3, -0.3, -0.1])
    assert got[3] == pytest.approx([2.05])
    assert told(made, "returns") == got


def test_tokens_without_a_kl() -> None:
    made = batches(CUT)
    method = advantage({"name": "gae", "gamma": 0.5, "lam": 1.0, "whiten": False})
    credit_tokens(method, REWARDS, made, alone)
    assert told(made) == {0: [0.5, 1.0], 1: [0.0], 2: [0.0, 0.0, 0.0], 3: [2.0]}


@pytest.mark.parametrize("parts", [ONE, CUT])
def test_groups(parts: Any) -> None:
    made = batches(parts)
    credit_groups(advantage({"name": "group", "scale": "none"}), REWARDS, made, alone)
    assert told(made) == {0: [0.5, 0.5], 1: [-0.5], 2: [-1.0, -1.0, -1.0], 3: [1.0]}
