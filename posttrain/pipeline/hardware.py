"""How a stage is spread over the machine: processes, micro-batches, ZeRO. Not part of the science.

accelerate's own configuration wins. Otherwise several GPUs get ZeRO-3 and everything else nothing;
`--hardware NAME` decides by hand (a file in recipes/hardware/, or any path).
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from posttrain.errors import MissingExtraError, RecipeError, nearest
from posttrain.pipeline.check import stage_length
from posttrain.recipe import Stage, stage_name

TOKENS_PER_MICRO_BATCH = 4096
ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


@dataclass(frozen=True)
class Hardware:
    """Processes of this launch and the DeepSpeed configuration of every stage, if any."""

    world: int
    deepspeed: dict[str, Any] | None
    line: str


def world_size() -> int:
    """Processes of this launch, from the environment that torchrun and accelerate set."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def find(name: str, recipe: Path) -> Path:
    """A hardware file by name or path.

    Raises:
        RecipeError: there is no such file.
    """
    folders = [
        recipe.resolve().parent / "hardware",
        recipe.resolve().parent.parent / "hardware",
        Path("recipes/hardware"),
        Path(__file__).resolve().parents[2] / "recipes" / "hardware",  # of a checkout
    ]
    for candidate in (Path(name), *(folder / f"{name}.yaml" for folder in folders)):
        if candidate.is_file():
            return candidate
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    hint = "; give the path of a YAML file that holds `deepspeed:`"
    if known:
        hint = nearest(name, known)
    raise RecipeError(f"--hardware: {name!r} is no file and no known name{hint}")


def choose(name: str | None, recipe: Path) -> Hardware:
    """What this launch runs on."""
    world = world_size()
    if name is not None:
        try:
            settings = yaml.safe_load(find(name, recipe).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            why = " ".join(str(error).split())
            raise RecipeError(f"--hardware {name}: the file is not YAML: {why}") from error
        if not isinstance(settings, dict) or set(settings) - {"deepspeed"}:
            raise RecipeError(
                f"--hardware {name}: the file may only hold `deepspeed:`, it holds {settings!r}"
            )
        deepspeed = need_deepspeed(settings.get("deepspeed"))
        return Hardware(world, deepspeed, f"{world} process(es), hardware {name}")
    if any(os.environ.get(f"ACCELERATE_USE_{x}") == "true" for x in ("DEEPSPEED", "FSDP")):
        return Hardware(world, None, f"{world} process(es), as accelerate's configuration says")
    if world > 1 and torch.cuda.is_available():
        line = f"{world} processes, ZeRO-3 (the default on several GPUs)"
        return Hardware(world, need_deepspeed(ZERO3), line)
    return Hardware(world, None, f"{world} process(es)" + (", DDP" if world > 1 else ""))


def need_deepspeed(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """The settings, if the package that reads them is there."""
    if settings is not None:
        try:
            import deepspeed  # noqa: F401
        except ImportError:
            raise MissingExtraError("deepspeed", "deepspeed", "ZeRO") from None
        need_compiler(settings)
    return settings


def need_compiler(settings: Mapping[str, Any]) -> None:
    """Refuse an optimizer on the CPU that could not be built, before anything is loaded.

    Raises:
        RecipeError: something that DeepSpeed's Adam is compiled with is missing.
    """
    offload = (settings.get("zero_optimization") or {}).get("offload_optimizer") or {}
    own = settings.get("zero_force_ds_cpu_optimizer", True)
    if offload.get("device", "none") == "none" or not own:
        return
    header = Path(sysconfig.get_path("include"), "Python.h")
    lacking = [name for name in (os.environ.get("CXX", "c++"), "ninja") if not shutil.which(name)]
    lacking += [] if header.is_file() else [str(header)]
    if lacking:
        raise RecipeError(
            "zero_optimization.offload_optimizer: DeepSpeed's own Adam for the CPU is compiled at "
            f"its first use, and {' and '.join(lacking)} cannot be found for it (a C++ compiler, "
            "ninja on the PATH and Python's headers are needed); install what is missing, or set "
            "`zero_force_ds_cpu_optimizer: false` to take torch's Adam, which is slower"
        )


def split_batch(stage: Any, world: int) -> tuple[int, int]:
    """Micro-batch and accumulation steps that make up the global batch.

    Under a token budget a process's whole share of the batch is one of them: the trainer cuts it.

    Raises:
        RecipeError: the batch cannot be divided; the nearest sizes that can are named.
    """
    batch, name = stage.batch_size, stage_name(stage)
    group = 1
    if stage.kind == "rlvr":
        batch, group = batch // stage.num_mini_batches, stage.num_generations
    unit = world * group
    if batch % unit or batch < unit:
        per = unit * (stage.num_mini_batches if stage.kind == "rlvr" else 1)
        low = max(stage.batch_size // per, 1) * per
        what = f"{world} process(es)" + (f" x {group} generations" if group > 1 else "")
        raise RecipeError(
            f"stages.{name}.batch_size: {stage.batch_size} cannot be divided over {what}; "
            f"the nearest that can: {low}, {low + per}"
        )
    share = batch // world
    if stage.max_tokens_per_device is not None:
        return share, 1
    micro, steps = stage.per_device_train_batch_size, stage.gradient_accumulation_steps
    if micro is None and steps is not None:
        micro = share // steps if share % steps == 0 else 0
    elif micro is None:
        most = max(TOKENS_PER_MICRO_BATCH // item_length(stage), 1)
        micro = max(m for m in range(1, min(most, share) + 1) if share % m == 0)
    if not micro or share % micro or (steps is not None and micro * steps != share):
        legal = [m for m in range(1, share + 1) if share % m == 0]
        raise RecipeError(
            f"stages.{name}: batch_size {stage.batch_size} on {world} process(es) is {share} each, "
            f"which per_device_train_batch_size {micro or stage.per_device_train_batch_size} x "
            f"gradient_accumulation_steps {steps or '?'} does not make up; allowed for "
            f"per_device_train_batch_size: {', '.join(map(str, legal))}"
        )
    return micro, share // micro


def item_length(stage: Any) -> int:
    """Tokens at most of what `batch_size` counts; a pack of pairs is of two sides."""
    sides = 2 if stage.packing and stage.row_kind == "preference" else 1
    return stage_length(stage) * sides


def set_accelerate_accumulation(steps: int) -> None:
    """accelerate's own DeepSpeed plugin must agree with the trainer, or it refuses to start."""
    os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = str(steps)


def batch_line(stage: Stage, world: int) -> str:
    """How the global batch is made up, for the log."""
    micro, steps = split_batch(stage, world)
    count = str(stage.batch_size)
    if stage.packing:
        count += f" packs of {item_length(stage)} tokens"
    parts = f"{micro} x {steps} accumulation x {world} process(es)"
    if stage.max_tokens_per_device is not None:
        most = f"micro-batches of at most {stage.max_tokens_per_device} tokens"
        parts = f"{micro} x {world} process(es), in {most}"
    if stage.kind == "rlvr":
        parts += f" x {stage.num_mini_batches} mini-batches"  # type: ignore[attr-defined]
    return f"{stage_name(stage)}: batch of {count} = {parts}"
