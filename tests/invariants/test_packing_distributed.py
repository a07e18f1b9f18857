"""Packs and token budgets on 2 processes, under DDP and ZeRO: the training of one process.

Some steps of plain SGD under a clipped norm; the last one, over a partial batch, is so large that
what is left of the weights before it, and so their rounding, does not count: the weights at the end
are its gradient. DDP is compared in float64, ZeRO, which has none, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
BASE = {"num_train_epochs": 1, "max_grad_norm": 1.0, "max_length": 64}
SFT: tuple[str, Any] = ("sft", SFT_ROWS)
DPO: tuple[str, Any] = ("dpo", PAIR_ROWS)
REWARD: tuple[str, Any] = ("reward", PAIR_ROWS)
PLANS: dict[str, tuple[str, Any, int, dict[str, Any]]] = {  # kind, rows, steps that they make
    "sft_packed": (*SFT, 5, {"packing": True}),
    "sft_budget": (*SFT, 3, {"max_tokens_per_device": 90}),
    "sft_both": (*SFT, 5, {"packing": True, "max_tokens_per_device": 150}),
    "dpo_packed": (*DPO, 3, {"packing": True, "max_length": 44}),
    "dpo_budget": (*DPO, 3, {"max_tokens_per_device": 160}),
    "reward_budget": (*REWARD, 3, {"max_tokens_per_device": 160}),
}
ROLLOUTS = {"num_generations": 4, "max_completion_length": 12, "beta": 0.05, "learning_rate": 1e-3}
ROLLOUTS |= {"max_tokens_per_device": 60}
WAYS = ("single", "ddp", "zero2", "zero3")
EXACT = ("ddp",)  # in float64, as is the run of one process that it is compared with
GAP = {True: 1e-9, False: 1e-5}  # exact, or float32


def run(way: str, kind: str, rows: Any, model: str, out: Path, config: Any) -> dict[str, Any]:
    """4 packs or 8 rows per step."""
    steps = (2 if config.get("packing") else 4) // (1 if way == "single" else 2)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": steps}
    told = {"way": way, "kind": kind, "model": model, "rows": rows, "out": str(out)}
    return told | {"config": {**BASE, **split, **config}}


def compared(way: str, name: str, model: str, exact: bool, folder: Path) -> dict[str, Any]:
    """A plan as plain SGD, whose last step is huge."""
    kind, rows, steps, more = PLANS[name]
    out = folder / f"{way}{'_exact' * exact}" / name
    rates = [0.05] * (steps - 1) + [500.0]
    given = run(way, kind, rows, model, out, {"optim": "sgd", **more})
    return given | {"exact": exact, "rates": rates}


@pytest.fixture(scope="module")
def trained(
    checkpoint: Callable[..., str],
    train_all: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder with every plan trained in every way, at `<way>/<name>`."""
    folder = tmp_path_factory.mktemp("packed")
    models = {True: checkpoint("starcoder2"), False: checkpoint()}
    runs = []
    for way, exact in [("single", True), *((way, way in EXACT) for way in WAYS)]:
        runs += [compared(way, name, models[exact], exact, folder) for name in PLANS]
    for way in WAYS:
        out = folder / way / "rlvr_budget"
        runs.append(run(way, "rlvr", PROBLEM_ROWS, models[False], out, ROLLOUTS))
    train_all(runs, folder)
    return folder


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", PLANS)
def test_training_is_that_of_one_process(trained: Path, log_of: Any, way: str, name: str) -> None:
    exact = way in EXACT
    first, second = (trained / (w + "_exact" * exact) / name for w in ("single", way))
    alone, many = log_of(first), log_of(second)
    assert len(alone) == len(many) == PLANS[name][2]
    for key in ("loss", "grad_norm"):
        expected = [entry[key] for entry in alone]
        assert len(set(expected)) == len(expected)
        assert [entry[key] for entry in many] == pytest.approx(expected, rel=GAP[exact])
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    largest = max(float(weight.norm()) for weight in one.values())
    assert largest > 50  # of a step of 500 times a norm of 1 at most; weights were of size 1
    for key, weight in one.items():
        gap = float((two[key] - weight).norm())
        assert gap < GAP[exact] * max(float(weight.norm()), 1e-2 * largest), key


@pytest.mark.parametrize("way", WAYS)
def test_rollouts_of_unequal_length_do_not_hang(trained: Path, log_of: Any, way: str) -> None:
    entries = log_of(trained / way / "rlvr_budget")
    assert len(entries) == 3
    assert all(entry["grad_norm"] > 0 for entry in entries)
