"""A step that is not finite on one process is skipped on all, under DDP, ZeRO-2 and ZeRO-3."""

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


@pytest.fixture(scope="module")
def poisoned(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> str:
    folder = str(tmp_path_factory.mktemp("poisoned"))
    shutil.copytree(checkpoint(), folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    token = tokenizer.encode("~", add_special_tokens=False)[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = float("inf")
    model.save_pretrained(folder)
    return folder


WAYS = ("single", "ddp", "zero2", "zero3")


def test_all_processes_skip_the_same_step(
    poisoned: str, train_all: Callable[..., None], log_of: Any, tmp_path: Path
) -> None:
    runs = []
    for way in WAYS:
        config = {"learning_rate": 3e-3, "max_grad_norm": 0.0, "num_train_epochs": 1}
        config |= {"per_device_train_batch_size": 1}
        config |= {"gradient_accumulation_steps": 4 if way == "single" else 2}
        run = {"way": way, "kind": "sft", "model": poisoned, "rows": ROWS, "config": config}
        runs.append(run | {"out": str(tmp_path / way)})
    train_all(runs, tmp_path)
    alone = log_of(tmp_path / "single")
    assert [entry["skipped_steps"] for entry in alone][-1] == 1
    weights = load_file(tmp_path / "single" / "model" / "model.safetensors")
    for way in WAYS:
        log = log_of(tmp_path / way)
        assert len(log) == 4
        assert [e["skipped_steps"] for e in log] == [e["skipped_steps"] for e in alone]
        assert [math.isfinite(e["loss"]) for e in log] == [math.isfinite(e["loss"]) for e in alone]
        assert sum(not math.isfinite(e["loss"]) for e in log) == 1
        state = load_file(tmp_path / way / "model" / "model.safetensors")
        for name, weight in weights.items():
            if "embed" not in name:
                assert state[name].isfinite().all()
                assert (state[name] - weight).abs().max() < 2e-4
