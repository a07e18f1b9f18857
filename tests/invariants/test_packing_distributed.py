"""Packs and token budgets on 2 processes, under DDP and ZeRO: the training of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

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


def run(way: str, name: str, folder: Path, model: str) -> dict[str, Any]:
    """A plan, 4 packs or 8 rows per step."""
    kind, rows, more = PLANS[name]
    steps = (2 if more.get("packing") else 4) // (1 if way == "single" else 2)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": steps}
    out = str(folder / way / name)
    config = {**BASE, **split, **more}
    return {"way": way, "kind": kind, "model": model, "rows": rows, "out": out, "config": config}


@pytest.fixture(scope="module")
def trained(
    checkpoint: Callable[..., str],
    train_all: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder with every plan trained in every way, at `<way>/<name>`."""
    folder = tmp_path_factory.mktemp("packed")
    train_all([run(way, name, folder, checkpoint()) for way in WAYS for name in PLANS], folder)
    return folder


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", [name for name in PLANS if not name.startswith("rlvr")])
def test_training_is_that_of_one_process(trained: Path, log_of: Any, way: str, name: str) -> None:
    alone, many = log_of(trained / "single" / name), log_of(trained / way / name)
    assert len(alone) == len(many) >= 3
    for key in ("loss", "grad_norm"):
        expected = [entry[key] for entry in alone]
        assert len(set(expected)) == len(expected)
        assert [entry[key] for entry in many] == pytest.approx(expected, rel=1e-3)
    first, second = (
        load_file(trained / w / name / "model" / "model.safetensors") for w in ("single", way)
    )
    for key, weight in first.items():
        assert (weight - second[key]).abs().max() < 5e-5, key


@pytest.mark.parametrize("way", WAYS)
def test_rollouts_of_unequal_length_do_not_hang(trained: Path, log_of: Any, way: str) -> None:
    entries = log_of(trained / way / "rlvr_budget")
    assert len(entries) == 3
    assert all(entry["grad_norm"] > 0 for entry in entries)
