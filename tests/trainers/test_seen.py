"""What is logged of RL, by hand from its rollouts, and what is written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.generation.local import Completion
from posttrain.trainers.rlvr import Rollout


def evenness(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def trained(model: str, out: Path, rewards: Any = evenness, **more: Any) -> Any:
    """A trainer that was run, and its rollouts."""
    rows = [
        {"prompt": f"Say {n}.", "ground_truth": str(n), "verifier": v}
        for n, v in enumerate(["string_match", "gsm8k"] * 4)
    ]
    options = {
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 4,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **more,
    }
    args = RLVRConfig(output_dir=str(out), **options)
    trainer = RLVRTrainer(model, rewards, args, train_dataset=Dataset.from_list(rows))
    seen: list[Rollout] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    return trainer, seen


def test_metrics_and_files_say_what_was_drawn(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer, seen = trained(checkpoint(), tmp_path)
    first, second = (e for e in trainer.state.log_history if "loss" in e)
    mine = [c for r in seen[:4] for c in r.completions]
    logps = [p for c in mine for p in c.logps]
    assert first["entropy"] == pytest.approx(-sum(logps) / len(logps), rel=1e-5)
    for name in ("string_match", "gsm8k"):
        own = [x for r in seen[:4] if r.row["verifier"] == name for x in r.rewards.tolist()]
        assert first[f"verifier/{name}/reward"] == pytest.approx(sum(own) / len(own))
        assert first[f"verifier/{name}/pass_rate"] == first[f"verifier/{name}/reward"]
    used = sum(len(c.ids) for r in seen[:4] if r.rewards.std() > 0 for c in r.completions)
    assert first["effective_batch"] == pytest.approx(used / sum(len(c.ids) for c in mine))
    for name in ("generate", "verify", "train"):
        assert first[f"seconds/{name}"] > 0
    files = sorted((tmp_path / "rollouts").iterdir())
    assert [file.name for file in files] == ["000000-0.parquet", "000001-0.parquet"]
    table = pq.read_table(files[0]).to_pylist()
    assert [row["reward"] for row in table] == [x for r in seen[:4] for x in r.rewards.tolist()]
    assert [row["completion"] for row in table] == [trainer.text(c) for c in mine]
    assert sum(row["advantage"] for row in table) == pytest.approx(0, abs=1e-5)
    assert {row["verifier"] for row in table} == {"string_match", "gsm8k"}
    assert second["ratio_max"] == second["ratio_min"] == 1  # each rollout lasts for one step


def test_ratio_extremes_are_those_of_all_micro_batches(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer, _ = trained(checkpoint(), tmp_path, num_ppo_epochs=2, save_rollouts=False)
    first, second = (e for e in trainer.state.log_history if "loss" in e)
    assert first["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert second["ratio_min"] < 0.99 < 1.01 < second["ratio_max"]
    assert not (tmp_path / "rollouts").exists()


@pytest.mark.parametrize(("cap", "factor"), [(1.5, 1.5), (4.0, 2.0)])
def test_the_importance_weight_multiplies_the_policy_loss(
    checkpoint: Callable[..., str], tmp_path: Path, cap: float, factor: float
) -> None:
    """A sampler that calls every token half as likely as the trainer does: rho = 2, capped."""

    def norm(out: str, loss: Any, shift: float) -> float:
        inner = RLVRTrainer.complete

        def told(self: Any, *args: Any, **kwargs: Any) -> list[list[Completion]]:
            groups = inner(self, *args, **kwargs)
            for completion in (c for group in groups for c in group):
                completion.logps[:] = [p - shift for p in completion.logps]
            return groups

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RLVRTrainer, "complete", told)
            trainer, _ = trained(checkpoint(), tmp_path / out, loss=loss, max_steps=1)
        return float(trainer.state.log_history[0]["grad_norm"])

    plain = norm("a", "grpo", math.log(2))
    spec = {"name": "grpo", "importance": {"name": "truncate", "cap": cap}}
    assert norm("b", spec, math.log(2)) == pytest.approx(factor * plain, rel=1e-4)
    assert norm("c", spec, 0.0) == pytest.approx(plain, rel=1e-4)  # the engine rounds as we do
