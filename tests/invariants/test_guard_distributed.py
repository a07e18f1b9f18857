"""A step that is not finite on one process is skipped on all, under DDP, ZeRO-2 and ZeRO-3.

What is trained beside it is that of one process: losses, gradient norms and weights. DDP is
compared in float64, ZeRO, which has none, in float32.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow

BAD = 7  # the row with a token whose embedding is infinite
ROWS = [
    {"prompt": f"What is {n}?", "completion": f"It is {'~' if n == BAD else n}.", "source": "s"}
    for n in range(16)
]
WAYS = ("single", "ddp", "zero2", "zero3")
EXACT = {"ddp"}  # in float64, as is the run of one process that it is compared with
GAP = {True: 1e-9, False: 1e-5}  # exact, or float32
# a large epsilon: Adam makes no more of a small gradient's rounding than of a large one's
LEARN = {"learning_rate": 3e-3, "adam_epsilon": 1e-2, "max_grad_norm": 0.0, "num_train_epochs": 1}


def poison(source: str, folder: Path, token: int) -> str:
    """A copy of a model in which the embedding of a token is infinite."""
    shutil.copytree(source, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = float("inf")
    model.save_pretrained(folder)
    return str(folder)


def finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def test_all_processes_skip_the_same_step(
    checkpoint: Callable[..., str],
    tokenizer: Any,
    train_all: Callable[..., None],
    log_of: Any,
    tmp_path: Path,
) -> None:
    [token] = tokenizer.encode("~", add_special_tokens=False)
    models = {
        exact: poison(checkpoint(kind, tie_word_embeddings=False), tmp_path / kind, token)
        for exact, kind in ((False, "llama"), (True, "starcoder2"))
    }
    runs = []
    for way, exact in [("single", True), *((way, way in EXACT) for way in WAYS)]:
        split = {"per_device_train_batch_size": 1}
        split |= {"gradient_accumulation_steps": 4 if way == "single" else 2}
        run = {"way": way, "kind": "sft", "model": models[exact], "rows": ROWS, "exact": exact}
        out = str(tmp_path / f"{way}{'_exact' * exact}")
        runs.append(run | {"out": out, "config": {**LEARN, **split}})
    train_all(runs, tmp_path)
    for way in WAYS[1:]:
        exact = way in EXACT
        first, second = (tmp_path / f"{w}{'_exact' * exact}" for w in ("single", way))
        alone, many = log_of(first), log_of(second)
        assert len(alone) == len(many) == 4
        skipped = [entry["skipped_steps"] for entry in alone]
        assert [entry["skipped_steps"] for entry in many] == skipped and skipped[-1] == 1
        for key in ("loss", "grad_norm"):  # of the skipped step NaN, or under ZeRO infinity
            expected, found = ([finite(entry[key]) for entry in log] for log in (alone, many))
            assert found == pytest.approx(expected, rel=GAP[exact], nan_ok=True), key
            assert sum(map(math.isnan, expected)) == 1
        start = load_file(Path(models[exact]) / "model.safetensors")
        one, two = (load_file(out / "model" / "model.safetensors") for out in (first, second))
        for name, weight in one.items():
            sound = start[name].isfinite()
            moved = (weight - start[name])[sound].norm()
            gap = (two[name] - weight)[sound].norm()
            assert two[name][sound].isfinite().all()
            assert float(moved) > 1e-3 and float(gap) < GAP[exact] * float(moved), name
