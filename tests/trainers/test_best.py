"""The held-out reward of RL: what is measured, which policy is the best, when a run stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.trainers.best import Best, is_new_best, waited

ROWS = [{"prompt": f"Say {n}."} for n in range(6)]


def evenness(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def test_of_equal_values_the_first_is_the_best() -> None:
    assert is_new_best([0.1])
    assert is_new_best([0.1, 0.2])
    assert not is_new_best([0.1, 0.2, 0.2])
    assert not is_new_best([])
    assert [waited(v) for v in ([], [1.0], [1.0, 0.5], [0.5, 1.0, 1.0, 0.0])] == [0, 0, 1, 2]


def test_it_stops_when_patience_is_over(tmp_path: Path) -> None:
    saved: list[int] = []
    history: list[dict[str, float]] = []
    trainer = SimpleNamespace(save_model=lambda path: saved.append(len(history)))
    args, state = SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(log_history=history)
    control = SimpleNamespace(should_training_stop=False)
    best, stops = Best(trainer, keep=True, patience=2), []
    for value in (0.2, 0.4, 0.3, 0.4, 0.5):
        history.append({"eval_reward": value})
        best.on_evaluate(args, state, control)
        stops.append(control.should_training_stop)
    assert saved == [1, 2, 5]
    assert stops == [False, False, False, True, True]


def test_the_held_out_reward_is_that_of_greedy_answers(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = RLVRConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=5,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = RLVRTrainer(
        checkpoint(), evenness, args, train_dataset=ROWS, eval_dataset=[*ROWS[:3]]
    )
    found = trainer.evaluate()
    prompts = [row["prompt_ids"] for row in trainer.eval_dataset]
    answers = trainer.complete(prompts, [0, 1, 2], greedy=True)
    rewards = evenness([group[0].ids for group in answers])
    assert [len(group) for group in answers] == [1, 1, 1]
    assert found["eval_reward"] == pytest.approx(sum(rewards) / 3)
    assert found["eval_truncated"] == sum(not group[0].finished for group in answers) / 3
    assert "eval_entropy" not in found
    assert trainer.evaluate()["eval_reward"] == found["eval_reward"]  # nothing is drawn
    assert trainer.state.log_history[0]["eval_reward"] == found["eval_reward"]
    assert trainer.evaluate({"a": ROWS[:3]})["eval_a_reward"] == found["eval_reward"]
