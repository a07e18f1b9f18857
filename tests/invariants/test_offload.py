"""DeepSpeed's own Adam, as a run with the optimizer on the CPU has it, against torch's AdamW.

One process trains with torch's; two train under ZeRO with theirs, which is compiled at its first
use. Decay of some weights, a learning rate that changes and a clipped norm are part of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

TOOLS = (os.environ.get("CXX", "c++"), "ninja")
LACKING = [name for name in TOOLS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"compiles DeepSpeed's Adam: no {LACKING} here"),
]

BUILD = "from deepspeed.ops.op_builder import CPUAdamBuilder as B; B().load()"
ROWS = [
    {"prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}." + " Yes." * (n % 5)}
    for n in range(24)
]
MODELS = {"full": None, "lora": {"r": 4, "alpha": 8}}
WAYS = ("zero2_offload_own", "zero3_offload_own")
CONFIG = {
    "num_train_epochs": 2,  # 6 steps of 8 rows
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-4,  # a gradient of the size of its rounding would make a step of full size
    "max_grad_norm": 1.0,
}


@pytest.fixture(scope="module")
def trained(
    checkpoint: Callable[..., str],
    train_all: Callable[..., None],
    launch: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder with everything trained, at `<way>/<model>`."""
    folder = tmp_path_factory.mktemp("offload")
    runs = []
    for way in ("single", *WAYS):
        split = {"per_device_train_batch_size": 2}
        split |= {"gradient_accumulation_steps": 4 if way == "single" else 2}
        for model, adapter in MODELS.items():
            run = {"way": way, "kind": "sft", "model": checkpoint(), "rows": ROWS}
            run |= {"out": str(folder / way / model), "adapter": adapter}
            runs.append(run | {"config": {**CONFIG, **split}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "compiled"))
        launch([sys.executable, "-c", BUILD], folder, 1800)  # here, for it may take minutes
        train_all(runs, folder)
    return folder


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_steps_are_those_of_torchs_adamw(
    trained: Path, checkpoint: Callable[..., str], log_of: Any, way: str, model: str
) -> None:
    alone, many = (log_of(trained / w / model) for w in ("single", way))
    assert len(alone) == len(many) == 6
    for key in ("loss", "grad_norm", "learning_rate"):
        expected = [entry[key] for entry in alone]
        assert len(set(expected)) > 3
        assert [entry[key] for entry in many] == pytest.approx(expected, rel=1e-5)
    name = "model" if model == "full" else "adapter_model"
    one, two = (
        load_file(trained / w / model / f"model/{name}.safetensors") for w in ("single", way)
    )
    start = load_file(Path(checkpoint()) / "model.safetensors")
    assert one.keys() == two.keys()
    for key, weight in one.items():
        moved = float((weight - start[key] if key in start else weight).norm())
        assert moved > 1e-3, key
        assert float((two[key] - weight).norm()) < 1e-5 * moved, key
