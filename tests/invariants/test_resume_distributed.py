"""Which checkpoint goes on where: on other numbers of processes, and under the same sharding.

DDP is run in float64: the steps after a checkpoint are those of a run on one process, to 1e-9.
Sharded checkpoints go on as they were written, to the last bit; any other way they are refused.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SFT_ROWS = [
    {"prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}." + " Yes." * (n % 5)}
    for n in range(21)  # 8 + 8 + 5: the third step is a partial one
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"It is {n + 1}." + " Yes." * (n % 4),
        "rejected": f"Is it {n}?" + " No." * (n % 3),
    }
    for n in range(21)
]
PLANS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sft": ("sft", SFT_ROWS, {}),
    "sft_budget": ("sft", SFT_ROWS, {"max_tokens_per_device": 110}),
    "dpo": ("dpo", PAIR_ROWS, {"learning_rate": 3e-4}),
}
COMMON = {
    "num_train_epochs": 2,  # 3 steps each
    "learning_rate": 3e-3,
    "adam_epsilon": 1e-4,
    "lr_scheduler_type": "linear",
    "save_strategy": "steps",
    "save_steps": 2,
}
SHARDED = ("zero1", "zero2", "zero3", "fsdp2")
DROPOUT = {"r": 4, "alpha": 8, "dropout": 0.2}


def run(way: str, name: str, model: str, out: Path, **more: Any) -> dict[str, Any]:
    """Six steps of 8 rows, or what is left of them after `resume`."""
    kind, rows, config = PLANS[name]
    split = {"per_device_train_batch_size": 2}
    split |= {"gradient_accumulation_steps": 4 if way == "single" else 2}
    told = {"way": way, "kind": kind, "model": model, "rows": rows, "out": str(out)}
    return told | {"config": {**COMMON, **split, **config}, **more}


def saved(out: Path, step: int) -> str:
    return str(out / "checkpoints" / f"checkpoint-{step}")


def after(out: Path, where: Path, step: int) -> dict[str, str]:
    """How a run goes on, in a copy of another one's folder that ends at a step."""
    shutil.copytree(out / "checkpoints", where / "checkpoints")
    for checkpoint in (where / "checkpoints").glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > step:
            shutil.rmtree(checkpoint)
    return {"resume": saved(where, step)}


def weights(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(out / "model" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def folder(
    checkpoint: Callable[..., str],
    train_all: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Runs that nobody stopped, and those that go on from their checkpoints, at `<way>/<name>`."""
    folder = tmp_path_factory.mktemp("resumed")
    exact, plain = checkpoint("starcoder2"), checkpoint()
    wet = {"adapter": DROPOUT}
    first = [
        run(way, name, exact, folder / way / name, exact=True)
        for way in ("single", "ddp")
        for name in PLANS
    ]
    models = dict.fromkeys(SHARDED, plain) | {"fsdp2": exact}  # worker.py wraps such layers
    first += [run(way, "sft", models[way], folder / way / "sft") for way in SHARDED]
    first.append(run("ddp", "sft", plain, folder / "ddp" / "dropout", **wet))
    train_all(first, folder)
    fewer, more, again = [], [], []
    for name in PLANS:
        out = folder / "fewer" / name
        told = after(folder / "ddp" / name, out, 2)
        fewer.append(run("single", name, exact, out, exact=True, **told))
    out = folder / "fewer" / "dropout"
    told = after(folder / "ddp" / "dropout", out, 2)
    fewer.append(run("single", "sft", plain, out, **wet, **told))
    train_all(fewer, folder)
    for name in PLANS:
        out = folder / "more" / name
        told = after(folder / "fewer" / name, out, 4)
        more.append(run("ddp", name, exact, out, exact=True, **told))
    for way in SHARDED:
        out = folder / "again" / way
        again.append(run(way, "sft", models[way], out, **after(folder / way / "sft", out, 2)))
    out = folder / "again" / "dropout"
    told = after(folder / "ddp" / "dropout", out, 2)
    again.append(run("ddp", "sft", plain, out, **wet, **told))
    no = [
        refusal("ddp", "zero2", "plain DDP, .* under ZeRO-1 or 2 with 2", plain, folder),
        refusal("zero2", "zero3", "ZeRO-1 or 2 by 2 processes, .* under ZeRO-3", plain, folder),
        refusal("zero3", "ddp", "ZeRO-3 by 2 processes, .* under plain DDP with 2", plain, folder),
        refusal("fsdp2", "ddp", "under FSDP, .* under plain DDP with 2", plain, folder),
    ]
    train_all([*more, *again, *no], folder)
    return folder


def refusal(wrote: str, way: str, pattern: str, model: str, folder: Path) -> dict[str, Any]:
    """A run that must not go on from a checkpoint: the worker looks at what it says."""
    out = folder / "refused" / f"{wrote}_{way}"
    told = {"resume": saved(folder / wrote / "sft", 2), "refused": pattern}
    return run(way, "sft", model, out, **told)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("way", ["fewer", "more"])
def test_on_other_numbers_of_processes_the_run_is_the_same(
    folder: Path, log_of: Any, way: str, name: str
) -> None:
    """Two processes begin, one goes on after step 2, and two again after step 4."""
    whole = log_of(folder / "single" / name)
    found = log_of(folder / way / name)
    assert [entry["step"] for entry in found] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "grad_norm", "learning_rate"):
        expected = [entry[key] for entry in whole]
        assert len(set(expected)) == 6
        assert [entry[key] for entry in found] == pytest.approx(expected, rel=1e-9), key
    one, two = weights(folder / "single" / name), weights(folder / way / name)
    assert one.keys() == two.keys()
    for key, weight in one.items():
        assert float((two[key] - weight).norm()) < 1e-9 * float(weight.norm()), key


@pytest.mark.parametrize("way", SHARDED)
def test_under_the_same_sharding_it_ends_with_the_same_bits(
    folder: Path, log_of: Any, way: str
) -> None:
    whole, resumed = folder / way / "sft", folder / "again" / way
    losses = [[entry["loss"] for entry in log_of(out)] for out in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    expected = weights(whole)
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_random_states_are_those_of_each_process(folder: Path) -> None:
    """Dropout draws the same masks on as many processes, and others on fewer."""
    name = "adapter_model"
    whole = weights(folder / "ddp" / "dropout", name)
    same, other = (weights(folder / way / "dropout", name) for way in ("again", "fewer"))
    for key, value in whole.items():
        assert torch.equal(same[key], value), key
    assert not any(torch.equal(other[key], value) for key, value in whole.items())


@pytest.mark.parametrize("way", ["zero2", "zero3"])
def test_deepspeeds_own_script_writes_the_weights(folder: Path, way: str, tmp_path: Path) -> None:
    checkpoint = Path(saved(folder / way / "sft", 6))
    command = [sys.executable, checkpoint / "zero_to_fp32.py", checkpoint, tmp_path]
    done = subprocess.run(
        [*map(str, command), "--safe_serialization"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = load_file(tmp_path / "model.safetensors")
    for name, value in weights(folder / way / "sft").items():
        assert torch.equal(written[name], value), name
