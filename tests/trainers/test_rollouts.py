"""Completions as micro-batches, by count and by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from posttrain.generation.local import Completion
from posttrain.trainers.rollouts import Rollout, by_count, by_tokens, pack_answers


def rollout(prompt: int, lengths: Sequence[int], first: int = 100) -> Rollout:
    """A prompt of so many tokens and completions of so many, each of its own token."""
    completions = [Completion([first + g] * n, True) for g, n in enumerate(lengths)]
    advantages = torch.arange(1.0, len(lengths) + 1)
    return Rollout({"prompt_ids": [7] * prompt}, completions, advantages, advantages, 0)


def names(parts: Any) -> list[list[tuple[int, int]]]:
    """Answers as (length of the prompt, number of the completion)."""
    return [[(len(r.row["prompt_ids"]), g) for r, g in part] for part in parts]


ROLLOUTS = [rollout(3, [2, 4]), rollout(5, [1, 1, 6])]


def test_by_count_deals_in_order_and_leaves_the_rest_empty() -> None:
    parts = by_count(ROLLOUTS, size=2, num=4)
    assert names(parts) == [[(3, 0), (3, 1)], [(5, 0), (5, 1)], [(5, 2)], []]


def test_by_tokens_keeps_a_prompt_and_its_completions_together() -> None:
    # 3 + 2 + 4 = 9 and 5 + 1 + 1 + 6 = 13
    assert names(by_tokens(ROLLOUTS, 22)) == [[(5, 0), (5, 1), (5, 2), (3, 0), (3, 1)]]
    assert names(by_tokens(ROLLOUTS, 21)) == [[(5, 0), (5, 1), (5, 2)], [(3, 0), (3, 1)]]
    # a group above the budget is cut, and its prompt comes twice: 5 + 1 + 1 and 5 + 6
    parts = by_tokens(ROLLOUTS, 12)
    assert sorted(names(parts)) == [[(3, 0), (3, 1)], [(5, 0), (5, 1)], [(5, 2)]]
    for part in parts:
        assert pack_answers(part)["input_ids"].shape[1] <= 12


def test_by_tokens_makes_as_many_as_the_other_processes_have() -> None:
    parts = by_tokens(ROLLOUTS, 22, at_least=4)
    assert len(parts) == 4
    assert sorted(len(part) for part in parts)[-1] < 5
    assert names(by_tokens([], 22, at_least=2)) == [[], []]


def test_a_packed_batch_has_each_prompt_once_and_every_advantage() -> None:
    answers = [(ROLLOUTS[1], 2), (ROLLOUTS[0], 0), (ROLLOUTS[1], 0)]
    batch = pack_answers(answers)
    assert batch["input_ids"].tolist() == [[7] * 5 + [102] * 6 + [100] + [7] * 3 + [100] * 2]
    assert batch["tokens"].tolist() == [6, 1, 2]
    assert batch["advantages"].tolist() == [3.0] * 6 + [1.0] + [1.0] * 2
    assert len(pack_answers([])["advantages"]) == 0


def test_one_completion_above_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 11 tokens"):
        by_tokens([rollout(5, [1, 6])], 10)
