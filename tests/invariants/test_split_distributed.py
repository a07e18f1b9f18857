"""One loss, whatever the split: the gradients of one process, on two, in every way to have two.

Plain SGD moves the weights by the gradient itself, so equal weights are equal gradients. The second
step is over the same rows: only then have both halves of a fresh adapter a gradient. It is so large
that what is left of the first weights, and so their rounding, does not count.

Float64 shows that the ways are one formula; there a model is needed that computes nothing in
float32 by itself, as Llama's norms do. DeepSpeed has no float64: with ZeRO it is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

PACKS = 4  # more than 8 rows need at max_length 160: the last ones are empty
SFT_ROWS = [
    {"prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}." + " Yes." * (n % 5)}
    for n in range(8)
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"It is {n + 1}." + " Yes." * (n % 4),
        "rejected": f"Is it {n}?" + " No." * (n % 3),
    }
    for n in range(8)
]
LOSSES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sft": ("sft", SFT_ROWS, {}),
    "sft_sequence_mean": ("sft", SFT_ROWS, {"loss_reduction": "sequence_mean"}),
    "dpo": (
        "dpo",
        PAIR_ROWS,
        {"loss": {"name": "dpo", "length_normalise": True, "beta": 5.0}},
    ),
    "reward": ("reward", PAIR_ROWS, {}),
}
MODELS = {"full": None, "lora": {"r": 4, "alpha": 8}}
COMMON = {
    "num_train_epochs": 2,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "max_length": 160,
}
ROWS_2X4 = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
ROWS_4X2 = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
ROWS_8X1 = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
PACKED = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "packing": True}
BUDGET = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "packing": True,
    "max_tokens_per_device": 320,
}
SPLITS: dict[str, dict[str, Any]] = {
    "ddp_2x4": {"way": "ddp", "split": ROWS_2X4, "exact": True},
    "ddp_4x2": {"way": "ddp", "split": ROWS_4X2, "exact": True},
    "ddp_8x1": {"way": "ddp", "split": ROWS_8X1, "exact": True},
    "ddp_budget": {"way": "ddp", "split": BUDGET, "exact": True},
    "fsdp2": {"way": "fsdp2", "split": PACKED, "exact": True},
    "ddp_packed": {"way": "ddp", "split": PACKED},
    "zero2_2x4": {"way": "zero2", "split": ROWS_2X4},
    "zero2_packed": {"way": "zero2", "split": PACKED},
    "zero3_2x4": {"way": "zero3", "split": ROWS_2X4},
    "zero3_packed": {"way": "zero3", "split": PACKED},
    "zero1": {"way": "zero1", "split": PACKED},
    "zero2_offload": {"way": "zero2_offload", "split": PACKED},
    "zero3_offload": {"way": "zero3_offload", "split": PACKED},
}
CASES = [
    (loss, model, split)
    for loss in LOSSES
    for model in MODELS
    for split in SPLITS
    if loss != "sft_sequence_mean" or split == "ddp_packed"
]
WHOLE = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
ALONE: dict[str, dict[str, Any]] = {  # one process with all rows at once; `start` takes no step
    "start": {"way": "single", "split": WHOLE, "rates": [0.0, 0.0]},
    "alone": {"way": "single", "split": WHOLE},
}
ALONE |= {f"{name}_exact": {**how, "exact": True} for name, how in ALONE.items()}
RATES = [0.05, 500.0]
GAP = {True: 1e-9, False: 1e-5}  # exact, or float32


def run(loss: str, model: str, split: str, path: str, folder: Path) -> dict[str, Any]:
    """Two steps over all rows."""
    kind, rows, more = LOSSES[loss]
    how = (SPLITS | ALONE)[split]
    out = str(folder / loss / model / split)
    return {"way": how["way"], "kind": kind, "model": path, "rows": rows, "out": out} | {
        "config": {**COMMON, **more, **how["split"]},
        "adapter": MODELS[model],
        "rates": how.get("rates", RATES),
        "exact": how.get("exact", False),
    }


@pytest.fixture(scope="module")
def trained(
    checkpoint: Callable[..., str],
    train_all: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder with everything trained, at `<loss>/<model>/<split>`."""
    folder = tmp_path_factory.mktemp("splits")
    paths = {True: checkpoint("starcoder2"), False: checkpoint()}
    alone = [(loss, model, s) for loss in LOSSES for model in MODELS for s in ALONE]
    many = sorted(CASES, key=lambda case: list(SPLITS).index(case[2]))
    exact = {name: how.get("exact", False) for name, how in (SPLITS | ALONE).items()}
    train_all([run(*case, paths[exact[case[2]]], folder) for case in (*alone, *many)], folder)
    return folder


def weights(out: Path, model: str) -> dict[str, torch.Tensor]:
    name = "model" if model == "full" else "adapter_model"
    return load_file(out / "model" / f"{name}.safetensors")


@pytest.mark.parametrize(("loss", "model", "split"), CASES)
def test_gradients_and_losses_are_those_of_one_process(
    trained: Path, log_of: Any, loss: str, model: str, split: str
) -> None:
    folder, exact = trained / loss / model, SPLITS[split].get("exact", False)
    first, whole = (name + "_exact" * exact for name in ("start", "alone"))
    alone, many = (
        [(row["loss"], row["grad_norm"]) for row in log_of(folder / s)] for s in (whole, split)
    )
    assert len(set(alone)) == 2
    for expected, found in zip(alone, many, strict=True):
        assert found == pytest.approx(expected, rel=GAP[exact])
    start, one, two = (weights(folder / s, model) for s in (first, whole, split))
    assert start.keys() == one.keys() == two.keys()
    moved = {name: float((one[name] - start[name]).norm()) for name in one}
    largest = max(moved.values())
    assert largest > 1e-3
    for name, distance in moved.items():
        gap = float((two[name] - one[name]).norm())
        assert gap < GAP[exact] * max(distance, 1e-2 * largest), name
