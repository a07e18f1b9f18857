"""Two processes under DDP and ZeRO-3 fill the table of one, under the same key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain import DPOConfig, DPOTrainer
from posttrain.store import DONE
from posttrain.trainers.reference import FILE, key_for, tables_of

pytestmark = pytest.mark.slow

ROWS = [
    {
        "prompt_ids": [10 + n, 20, 30 + n],
        "chosen_ids": [40 + n] * (1 + n % 4) + [1],
        "rejected_ids": [50 + n] * (1 + n // 3) + [1],
        "source": "a",
    }
    for n in range(11)  # chunks of 4, 4 and 3 rows, of two each: one process has none at the end
]
ZERO3 = {
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_max_reuse_distance": 0,
    },
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


def test_two_processes(
    checkpoint: Callable[..., str],
    on_two: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = {"own": checkpoint(), "foreign": checkpoint(initializer_range=0.1)}
    ways = {"ddp": None, "zero3": ZERO3}
    job = {"models": models, "rows": ROWS, "out": str(tmp_path), "ways": ways}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    on_two(Path(__file__).parent / "reference_worker.py", tmp_path / "job.json")
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "alone"))
    for name, model in models.items():
        args = DPOConfig(output_dir=str(tmp_path / "one"), report_to=[], disable_tqdm=True)
        trainer = DPOTrainer(model, args=args, train_dataset=ROWS)
        expected = tables_of(trainer, {"rows": ROWS})["rows"]
        key = key_for(trainer, trainer.model, ROWS)
        assert key is not None
        for way in ways:
            found = load_file(tmp_path / way / name / FILE)["train"]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            assert (tmp_path / way / "cache" / key[:2] / key / DONE).is_file()
