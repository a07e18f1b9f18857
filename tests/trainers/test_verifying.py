"""Verifiers in worker processes while completions are written; gold answers before the first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.errors import DataError
from posttrain.generation.base import Completion
from posttrain.trainers.verifying import Verification
from posttrain.verifiers import verify
from posttrain.verifiers.workers.pool import Pool

ROWS = [{"verifier": "string_match", "ground_truth": str(n)} for n in range(2)]


def config(out: Path, **more: Any) -> RLVRConfig:
    values = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 4,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return RLVRConfig(output_dir=str(out), **{**values, **more})


def test_groups_in_any_order() -> None:
    texts = {(0, 0): "0", (0, 1): "1", (1, 0): "1", (1, 1): "1"}
    with Pool(1, 20.0) as pool:
        asked = Verification(pool, {0: "verifier", 2: "gsm8k"}, ROWS, lambda c: texts[tuple(c.ids)])
        for index in (1, 0):
            asked(index, [Completion([index, g], True) for g in range(2)])
        scores = asked.scores()
        assert scores.keys() == {0, 2}
        assert torch.equal(scores[0], torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        assert torch.equal(scores[2], torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        assert asked.faults() == {"timeout": 0, "crash": 0}


def test_a_verdict_that_takes_too_long_is_counted(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = [{"prompt": f"Say {n}.", "ground_truth": str(n), "verifier": "math"} for n in range(4)]
    args = config(tmp_path, reward_seconds=1e-4, max_wrong_gold=None, reward_workers=1)
    trainer = RLVRTrainer(checkpoint(), args=args, train_dataset=rows)
    trainer.train()
    [entry] = [e for e in trainer.state.log_history if "verifier/timeout" in e]
    assert entry["verifier/timeout"] > 0  # on a busy machine some answers are there before it looks
    assert entry["verifier/crash"] == 0.0
    assert not trainer.pool._threads  # no worker outlives training


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_score_as_this_process_does(
    workers: int, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"Say {n}.", "ground_truth": "[aeiou]", "verifier": "regex"} for n in range(4)
    ]
    args = config(tmp_path, reward_workers=workers, max_wrong_gold=None)
    trainer = RLVRTrainer(checkpoint(), args=args, train_dataset=rows)
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    for rollout in seen:
        texts = [trainer.text(c) for c in rollout.completions]
        assert rollout.rewards.tolist() == [
            verify("regex", text, "[aeiou]").score for text in texts
        ]
    assert {0.0, 1.0} <= {r for rollout in seen for r in rollout.rewards.tolist()}


def test_wrong_gold_answers_stop_a_run(
    checkpoint: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": f"Say {n}.", "ground_truth": str(n), "verifier": "gsm8k"} for n in range(4)]
    rows[2]["ground_truth"] = "nobody knows"
    trainer = RLVRTrainer(checkpoint(), args=config(tmp_path), train_dataset=rows)
    with pytest.raises(DataError, match=r"1 of 4 rows are graded wrongly \(25.0%\)\n.*row 2"):
        trainer.train()
    assert trainer.state.global_step == 0
    with caplog.at_level(logging.WARNING):
        args = config(tmp_path, max_wrong_gold=0.3)
        RLVRTrainer(checkpoint(), args=args, train_dataset=rows).train()
    assert "1 of 4 rows are graded wrongly" in caplog.text
