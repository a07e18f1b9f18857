"""Where a run may stop: in a step, while saving, before evaluating; and what is kept of it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import SFTConfig, SFTTrainer
from posttrain.errors import RunError
from posttrain.models import Adapter
from posttrain.packing import GlobalBatches, TokenBatches

ROWS = [{"prompt": f"Say {n}!", "completion": f"It is {n}." * (1 + n % 3)} for n in range(10)]
CONFIG = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,  # 3 steps an epoch
    "learning_rate": 3e-3,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "report_to": [],
    "disable_tqdm": True,
}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it, and nothing is tidied up."""


@pytest.fixture
def trainer(checkpoint: Callable[..., str], tmp_path: Path) -> Callable[..., SFTTrainer]:
    """`trainer(**config)`: a fresh one that saves below `tmp_path`; dropout in its adapters."""

    def make(**config: Any) -> SFTTrainer:
        args = SFTConfig(**{"output_dir": str(tmp_path / "run"), **CONFIG, **config})
        adapter = Adapter(r=4, dropout=0.1)
        return SFTTrainer(
            checkpoint(), args, train_dataset=ROWS, eval_dataset=ROWS[:3], peft_config=adapter
        )

    return make


def trained(one: SFTTrainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in one.model.named_parameters() if p.requires_grad}


def kill_in(monkeypatch: pytest.MonkeyPatch, name: str, occurrence: int) -> None:
    """Let the `occurrence`-th call of a method of the trainers not return."""
    method, calls = getattr(SFTTrainer, name), []

    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == occurrence:
            raise Killed
        return method(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, name, dies)


@pytest.mark.parametrize(
    ("name", "occurrence", "kept"),
    [
        ("training_step", 6, 2),  # the second micro-batch of step 3, the last of its epoch
        ("_save_rng_state", 2, 2),  # checkpoint 4 has weights and optimizer, and no state
        ("evaluate", 2, 4),  # between save and evaluation
    ],
)
def test_stopped_anywhere_it_ends_with_the_same_weights(
    name: str,
    occurrence: int,
    kept: int,
    trainer: Callable[..., SFTTrainer],
    tmp_path: Path,
) -> None:
    whole = trainer(output_dir=str(tmp_path / "whole"))
    whole.train()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_in(patch, name, occurrence)
        trainer().train()
    names = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert f"checkpoint-{kept}" in names and f"checkpoint-{kept + 2}" not in names
    torch.manual_seed(99)
    again = trainer()
    again.train(resume_from_checkpoint=True)
    assert not (tmp_path / "run" / ".saving").exists()
    expected = trained(whole)
    for name, value in trained(again).items():
        assert torch.equal(value, expected[name]), name


def test_evaluation_leaves_training_as_it_was(trainer: Callable[..., SFTTrainer]) -> None:
    weights = []
    for strategy in ("steps", "no"):
        one = trainer(eval_strategy=strategy)  # it sets the seed
        one.train()
        weights.append(trained(one))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


@pytest.mark.parametrize("steps", [4, 6])  # within the second epoch, and at its end
def test_after_its_last_step_a_run_takes_no_other(
    steps: int, trainer: Callable[..., SFTTrainer]
) -> None:
    first = trainer(max_steps=steps)
    first.train()
    again = trainer(max_steps=steps)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == steps
    expected = trained(first)
    for name, value in trained(again).items():
        assert torch.equal(value, expected[name]), name


def test_a_damaged_checkpoint_is_skipped_and_named(
    trainer: Callable[..., SFTTrainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer()
    whole.train()
    (tmp_path / "run" / "checkpoint-6" / "optimizer.pt").unlink()
    last = tmp_path / "run" / "checkpoint-6"
    with pytest.raises(RunError, match=r"checkpoint-6 is not whole \(optimizer.pt is missing\)"):
        trainer().train(resume_from_checkpoint=str(last))
    again = trainer()
    with caplog.at_level(logging.WARNING, "posttrain"):
        again.train(resume_from_checkpoint=True)
    assert "checkpoint-6 is not whole (optimizer.pt is missing): skipped" in caplog.text
    expected = trained(whole)
    for name, value in trained(again).items():
        assert torch.equal(value, expected[name]), name
    assert (last / "optimizer.pt").is_file()  # it was written anew
    for path in (tmp_path / "run").glob("checkpoint-*/trainer_state.json"):
        path.write_text('{"global_st')
    with pytest.raises(RunError, match="holds no whole checkpoint"):
        trainer().train(resume_from_checkpoint=True)


def test_only_so_many_are_kept_and_damaged_ones_go_first(
    trainer: Callable[..., SFTTrainer], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trainer(max_steps=4).train()
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-5")  # damaged, and newer than the rest
    (run / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"torn")
    limited = trainer(save_total_limit=2)
    limited.train(resume_from_checkpoint=True)
    assert {p.name for p in run.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}


def test_the_best_is_kept_and_found_again(
    trainer: Callable[..., SFTTrainer], tmp_path: Path
) -> None:
    """Saved before it was evaluated, a checkpoint is still known as the best afterwards."""
    one = trainer(
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        save_steps=1,
        eval_steps=1,
        learning_rate=0.3,
    )
    one.train()
    losses = {row["step"]: row["eval_loss"] for row in one.state.log_history if "eval_loss" in row}
    best = min(losses, key=lambda step: losses[step])
    assert len(losses) == 6
    assert one.state.best_model_checkpoint == str(tmp_path / "run" / f"checkpoint-{best}")
    assert [p.name for p in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-{best}"]
    state = json.loads((tmp_path / "run" / f"checkpoint-{best}" / "trainer_state.json").read_text())
    assert state["best_global_step"] == best
    assert one.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6)


def test_rows_of_a_step_do_not_depend_on_the_number_of_processes() -> None:
    """So a run may go on with more processes, or fewer, from any step on."""

    def steps(world: int, by_tokens: bool) -> list[list[int]]:
        dealt: list[list[list[int]]] = []
        for rank in range(world):
            if by_tokens:
                lengths = torch.arange(10, 33).numpy()
                batches: Any = TokenBatches(lengths, 8, 64, rank, world, 5)
                batches.set_epoch(3)
                dealt.append([[row for micro in step for row in micro] for step in batches])
            else:
                batches = GlobalBatches(23, 8, 2, rank, world, 5)
                batches.set_epoch(3)
                flat, per_step = list(batches), batches.accumulation
                cuts = range(0, len(flat), per_step)
                dealt.append([[r for m in flat[i : i + per_step] for r in m] for i in cuts])
        together = zip(*dealt, strict=True)
        return [sorted(row for part in step for row in part if row >= 0) for step in together]

    alone = steps(1, False)
    assert [len(rows) for rows in alone] == [8, 8, 7]
    assert steps(2, False) == steps(4, False) == alone
    assert steps(1, True) == steps(2, True) == steps(3, True) == alone
