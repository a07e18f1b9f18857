"""Packs and token budgets on 2 processes, under DDP and ZeRO: the training of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "worker.py"
SFT_ROWS = [
    {
        "prompt": f"What is {n} plus {n * n}?",
        "completion": f"{n}+{n * n}={n + n * n}." + " Yes." * (n % 4),
    }
    for n in range(1, 25)
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus {n}?",
        "chosen": f"{n}+{n}={2 * n}." + " So it is." * (n % 3),
        "rejected": f"It is {2 * n + 1}",
    }
    for n in range(1, 22)  # 21 rows: the last step is a partial one, and odd
]
PROBLEM_ROWS = [{"prompt": f"What is {n} plus {n}?"} for n in range(1, 6)]
BASE = {"learning_rate": 3e-4, "max_grad_norm": 1.0, "num_train_epochs": 1, "max_length": 64}
RLVR = {"num_generations": 4, "max_completion_length": 12, "beta": 0.05, "learning_rate": 1e-3}
PLANS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sft_packed": ("sft", SFT_ROWS, {"packing": True}),
    "sft_budget": ("sft", SFT_ROWS, {"max_tokens_per_device": 90}),
    "sft_both": ("sft", SFT_ROWS, {"packing": True, "max_tokens_per_device": 150}),
    "dpo_packed": ("dpo", PAIR_ROWS, {"packing": True, "max_length": 44}),
    "dpo_budget": ("dpo", PAIR_ROWS, {"max_tokens_per_device": 160}),
    "reward_budget": ("reward", PAIR_ROWS, {"max_tokens_per_device": 160}),
    "rlvr_budget": ("rlvr", PROBLEM_ROWS, {**RLVR, "max_tokens_per_device": 60}),
}
WAYS = ("single", "ddp", "zero2", "zero3")


def job(way: str, folder: Path, model: str) -> list[dict[str, Any]]:
    """Every plan, 4 packs or 8 rows per step."""
    zero = {
        "zero_optimization": {
            "stage": 3 if way == "zero3" else 2,
            "stage3_gather_16bit_weights_on_model_save": True,
            # really partition: by default parameters this small stay whole
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,
        },
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    found = []
    for name, (kind, rows, more) in PLANS.items():
        size = 4 if more.get("packing") else 8
        split = {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": size // 2 // (1 if way == "single" else 2),
        }
        found.append(
            {
                "kind": kind,
                "model": model,
                "rows": rows,
                "out": str(folder / name),
                "config": {**BASE, **split, **more},
                "deepspeed": zero if way.startswith("zero") else None,
            }
        )
    return found


@pytest.fixture(scope="module")
def trained(checkpoint: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`trained(way)`: the folder with everything trained that way, run once."""
    done: dict[str, Path] = {}
    model = checkpoint()

    def launch(way: str) -> Path:
        if way not in done:
            folder = tmp_path_factory.mktemp(way)
            (folder / "job.json").write_text(json.dumps({"runs": job(way, folder, model)}))
            many = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            result = subprocess.run(
                [sys.executable, *([] if way == "single" else many), WORKER, folder / "job.json"],
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert result.returncode == 0, result.stderr[-6000:]
            done[way] = folder
        return done[way]

    return launch


def log(folder: Path, name: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / name / "log.json").read_text())
    return found


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", [name for name in PLANS if not name.startswith("rlvr")])
def test_training_is_that_of_one_process(trained: Any, way: str, name: str) -> None:
    alone, many = log(trained("single"), name), log(trained(way), name)
    assert len(alone) == len(many) >= 3
    for key in ("loss", "grad_norm"):
        expected = [entry[key] for entry in alone]
        assert len(set(expected)) == len(expected)
        assert [entry[key] for entry in many] == pytest.approx(expected, rel=1e-3)
    file = Path(name) / "model" / "model.safetensors"
    first, second = load_file(trained("single") / file), load_file(trained(way) / file)
    for key, weight in first.items():
        assert (weight - second[key]).abs().max() < 5e-5, key


@pytest.mark.parametrize("way", WAYS)
def test_rollouts_of_unequal_length_do_not_hang(trained: Any, way: str) -> None:
    entries = log(trained(way), "rlvr_budget")
    assert len(entries) == 3
    assert all(entry["grad_norm"] > 0 for entry in entries)
