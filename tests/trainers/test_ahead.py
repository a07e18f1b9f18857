"""Rollouts asked for before they are needed: how old their tokens are, and that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.errors import RecipeError, ServerError
from posttrain.generation.base import Completion
from posttrain.losses.importance import Truncate
from posttrain.trainers.rlvr import Rollout
from posttrain.trainers.rlvr_config import Methods

PROBLEMS = [{"prompt": f"Say {n}."} for n in range(12)]


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def trainer_of(model: str, out: Path, **more: Any) -> RLVRTrainer:
    """2 prompts a step, 6 steps an epoch."""
    args = RLVRConfig(
        output_dir=str(out),
        **{
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 5,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more,
        },
    )
    return RLVRTrainer(model, even_share, args, train_dataset=PROBLEMS)


def watched(trainer: RLVRTrainer) -> tuple[list[Rollout], list[tuple[int, list[int]]]]:
    """Rollouts as they are trained on; step and rows whenever some are asked for."""
    taken: list[Rollout] = []
    asked: list[tuple[int, list[int]]] = []
    trainer.on_rollout = taken.extend
    write = trainer.write

    def spy(new: Any, *rest: Any) -> None:
        rows = [int(row["index"]) for one in new for row in one.rows]
        asked.append((trainer.state.global_step, rows))
        write(new, *rest)

    trainer.write = spy  # type: ignore[method-assign]
    return taken, asked


def series(trainer: RLVRTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize(
    ("ahead", "mini", "asked", "stale"),
    [
        (0, 1, [0, 1, 2, 3, 4, 5], []),
        (1, 1, [0, 0, 1, 2, 3, 4], [0, 1, 1, 1, 1, 1]),
        (2, 1, [0, 0, 2, 4], [0, 1, 2, 1, 2, 1]),
        (9, 1, [0, 0], [0, 1, 2, 3, 4, 5]),
        (1, 2, [0, 0, 2], [0, 2, 2]),  # a rollout lasts for two steps
    ],
)
def test_every_prompt_once_in_the_same_order_and_never_too_old(
    ahead: int,
    mini: int,
    asked: list[int],
    stale: list[float],
    checkpoint: Callable[..., str],
    tmp_path: Path,
) -> None:
    plain, _ = watched(plain_trainer := trainer_of(checkpoint(), tmp_path / "a"))
    plain_trainer.train()
    trainer = trainer_of(checkpoint(), tmp_path, rollouts_ahead=ahead, num_mini_batches=mini)
    taken, calls = watched(trainer)
    trainer.train()
    rows = [int(r.row["index"]) for r in taken]
    assert rows == [int(r.row["index"]) for r in plain]
    assert [step for step, _ in calls] == asked
    assert [i for _, some in calls for i in some] == rows  # nothing is asked for beyond the end
    assert series(trainer, "staleness") == stale


def test_an_epoch_begins_with_a_rollout_of_its_own(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, rollouts_ahead=1, max_steps=8)
    taken, calls = watched(trainer)
    trainer.train()
    assert [step for step, _ in calls] == [0, 0, 1, 2, 3, 4, 6, 6]
    assert sorted(int(r.row["index"]) for r in taken[:12]) == list(range(12))


def test_tokens_are_of_the_weights_that_were_asked(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """The sampler's log-probs are the old weights', the old ones those of the trainer's now."""
    trainer = trainer_of(checkpoint(), tmp_path, rollouts_ahead=1, num_mini_batches=2, max_steps=4)
    weights: dict[int, Any] = {}
    ask, roll_out = trainer.ahead.ask, trainer.roll_out

    def keep(rollouts: Any) -> None:
        state = trainer.model.state_dict()
        weights[trainer.state.global_step] = {k: v.clone() for k, v in state.items()}
        ask(rollouts)

    gaps: list[float] = []

    def compare(asked: Any, num_batches: int) -> Any:
        windows = roll_out(asked, num_batches)
        now = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        for batch in [b for window in windows for b in window]:
            here = trainer._prepare_inputs(batch)
            with torch.no_grad():
                new = trainer.logps(trainer.model, here)
                trainer.model.load_state_dict(weights[asked.step])
                old = trainer.logps(trainer.model, here)
                trainer.model.load_state_dict(now)
            assert torch.allclose(batch["old_logps"], new, atol=1e-5)
            assert torch.allclose(batch["sampler_logps"], old, atol=1e-5)
            gaps.append(float((new - old).abs().max()))
        return windows

    trainer.ahead.ask, trainer.roll_out = keep, compare  # type: ignore[method-assign]
    trainer.train()
    assert gaps[:2] == [0, 0]  # the first rollout is of the weights that it trains
    assert min(gaps[2:]) > 1e-3
    assert trainer.methods.loss.importance == Truncate(cap=2.0)


def test_the_importance_weight_is_on_where_tokens_are_older_or_others(tmp_path: Path) -> None:
    def weight(**more: Any) -> Any:
        return Methods.of(RLVRConfig(output_dir=str(tmp_path), **more)).loss.importance

    assert weight() is None
    assert weight(rollouts_ahead=1) == Truncate(cap=2.0)
    assert weight(generation={"name": "vllm"}) == Truncate(cap=2.0)
    asked = {"name": "grpo", "importance": {"name": "truncate", "cap": 3.0}}
    assert weight(rollouts_ahead=1, loss=asked) == Truncate(cap=3.0)
    assert weight(rollouts_ahead=1, loss={"name": "grpo", "importance": None}) is None


def test_what_goes_wrong_in_the_thread_stops_the_run(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, rollouts_ahead=1)
    threads: list[str] = []

    class Elsewhere:
        """Stands where a server is, so that rollouts are written in a thread."""

        def close(self) -> None: ...

    def write(prompts: Any, numbers: Any, on_group: Any, *rest: Any) -> list[Any]:
        threads.append(threading.current_thread().name)
        if len(threads) == 4:
            raise ServerError("the vLLM server died")
        for i in range(len(prompts)):
            on_group(i, [Completion([3 + g, 4 + i], True, [-1.0, -1.0]) for g in range(4)])
        return []

    trainer.complete, trainer.served = write, Elsewhere()  # type: ignore
    with pytest.raises(ServerError, match="died"):
        trainer.train()
    assert trainer.state.global_step == 3  # the rollouts that were there are trained on
    assert all(name.startswith("rollouts") for name in threads)
    assert trainer.ahead.thread is None


def test_what_it_does_not_go_with(
    checkpoint: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RecipeError, match="rollouts_ahead: got 1, but resample_rounds"):
        trainer_of(checkpoint(), tmp_path, rollouts_ahead=1, resample_rounds=2)
    trainer_of(checkpoint(), tmp_path, rollouts_ahead=1)
    assert "no time is won" in caplog.text
    with pytest.raises(RecipeError, match="rollouts_ahead: got -1; allowed is 0 or more"):
        trainer_of(checkpoint(), tmp_path, rollouts_ahead=-1)
