"""Dynamic sampling: which groups are replaced, by what, and that it is bounded and repeatable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.errors import RecipeError
from posttrain.generation.local import Completion
from posttrain.trainers.refill import Draw
from posttrain.trainers.rlvr import Rollout

PROBLEMS = [{"prompt": f"Say {n}.", "useful": n >= 4} for n in range(12)]


def spread_if_useful(useful: list[bool], **_: Any) -> list[float]:
    """Groups of problems 0 to 3 earn 1 throughout, others 0, 1, 0, 1."""
    return [float(i % 2) if one else 1.0 for i, one in enumerate(useful)]


def draw(*rewards: list[float]) -> Draw:
    groups = [[Completion([n], True) for _ in row] for n, row in enumerate(rewards)]
    table = torch.tensor(rewards)
    return Draw([{"index": n} for n in range(len(rewards))], groups, table[None], table)


def trainer_of(model: str, out: Path, **more: Any) -> RLVRTrainer:
    args = RLVRConfig(
        output_dir=str(out),
        **{
            "per_device_train_batch_size": 24,
            "num_generations": 4,
            "max_completion_length": 4,
            "max_steps": 1,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more,
        },
    )
    return RLVRTrainer(model, spread_if_useful, args, train_dataset=PROBLEMS)


def rolled(trainer: RLVRTrainer) -> tuple[list[Rollout], dict[str, float]]:
    seen: list[Rollout] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    return seen, trainer.state.log_history[0]


def test_groups_without_a_spread_are_replaced_in_place() -> None:
    first = draw([1, 1], [0, 1], [0, 0])
    assert first.flat() == [0, 2]
    found = draw([5, 6], [7, 7])
    both = first.replaced(first.flat(), found.some([0]))
    assert both.rewards.tolist() == [[5, 6], [0, 1], [0, 0]]
    assert both.scores[0].tolist() == both.rewards.tolist()
    assert both.completions[0] is found.completions[0]
    assert first.rewards.tolist() == [[1, 1], [0, 1], [0, 0]]


def test_a_batch_is_filled_up(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    """6 prompts a step of 12: those of 0 to 3 are replaced by others, none of them twice."""
    plain, before = rolled(trainer_of(checkpoint(), tmp_path / "a"))
    flat = [r.row["index"] for r in plain if r.row["index"] < 4]
    assert 0 < len(flat) < 4
    assert before["effective_batch"] == pytest.approx(1 - len(flat) / 6)
    assert "resampled" not in before
    filled, log = rolled(trainer_of(checkpoint(), tmp_path / "b", resample_rounds=4))
    numbers = [r.row["index"] for r in filled]
    assert len(set(numbers)) == 6
    assert min(numbers) >= 4
    kept = [(r.row["index"], r.completions) for r in plain if r.row["index"] >= 4]
    assert all(pair in [(r.row["index"], r.completions) for r in filled] for pair in kept)
    assert log["effective_batch"] == 1
    assert log["resampled"] >= len(flat) / 6
    assert log["reward"] == before["reward"]  # of what was drawn, not of what was chosen
    again, _ = rolled(trainer_of(checkpoint(), tmp_path / "c", resample_rounds=4))
    assert [r.row["index"] for r in again] == numbers


def test_it_ends_where_nothing_has_a_spread(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, resample_rounds=2)
    trainer.rewards = type(trainer.rewards).of(lambda completions, **_: [1.0] * len(completions))
    sizes, inner = [], trainer.judged
    trainer.judged = lambda asked: (sizes.append(len(asked.rows)), inner(asked))[1]  # type: ignore[method-assign]
    trained, loss_sum = [], trainer.loss_sum
    trainer.loss_sum = lambda m, b: (trained.append(len(b["keep"])), loss_sum(m, b))[1]  # type: ignore[method-assign]
    _, log = rolled(trainer)
    assert sizes == [6, 6, 0]  # 12 problems are there
    assert log["resampled"] == 1
    assert log["effective_batch"] == 0
    assert trained == [0]  # groups without an advantage do not reach the model


def test_it_needs_groups(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"resample_rounds: got 1.*num_generations above 1"):
        trainer_of(checkpoint(), tmp_path, resample_rounds=1, num_generations=1)
