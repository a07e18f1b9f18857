"""The trainers and the plain loops in examples/ coincide, step by step.

In float64, so that a gap is one of mathematics: in float32 fifty steps of Adam blow rounding up.
For the same reason the model is one that computes nothing in float32 by itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.models import load_model
from posttrain.sources import stand_in
from posttrain.trainers.dpo import DPOConfig, DPOTrainer
from posttrain.trainers.sft import SFTConfig, SFTTrainer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.usefixtures("float64")

STEPS, BATCH, RATE = 50, 4, 1e-3


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def settings(folder: Path, **extra: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH // 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": RATE,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        **extra,
    }


def test_sft(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = str(checkpoint("starcoder2"))
    trainer = SFTTrainer(
        load_model(path).double(),
        SFTConfig(**settings(tmp_path)),
        train_dataset=stand_in("conversation", 12, 0),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    rows = list(trainer.train_dataset)
    twin = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    expected = example("sft").train(
        twin, rows, steps=STEPS, batch_size=BATCH, learning_rate=RATE, seed=trainer.args.seed
    )
    assert losses(trainer) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("normalise", [False, True])
def test_dpo(checkpoint: Callable[..., Path], tmp_path: Path, normalise: bool) -> None:
    path = str(checkpoint("starcoder2"))
    beta = 5.0 if normalise else 0.1
    loss = {"name": "dpo", "beta": beta, "length_normalise": normalise}
    trainer = DPOTrainer(
        load_model(path).double(),
        args=DPOConfig(**settings(tmp_path, loss=loss)),
        train_dataset=stand_in("preference", 12, 0),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    rows = list(trainer.train_dataset)
    twin = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    expected = example("dpo").train(
        twin,
        rows,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=RATE,
        beta=beta,
        normalise=normalise,
        seed=trainer.args.seed,
    )
    assert losses(trainer) == pytest.approx(expected, rel=1e-9)
