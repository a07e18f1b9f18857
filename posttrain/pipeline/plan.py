"""What a run will do: where each stage starts, what decides its result, whether it is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import RunError
from posttrain.recipe import Recipe, Stage, stage_name, to_dict
from posttrain.sources import PREFIX
from posttrain.sources.files import digest

if TYPE_CHECKING:
    from posttrain.pipeline.run import Run

# what a stage may change without its result being another one
COSMETIC = (
    "logging_steps", "save_steps", "save_total_limit", "gradient_checkpointing",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_tokens_per_device",
    "eval_steps",
)  # fmt: skip
SHARED = ("model_name_or_path", "model_revision", "chat_template", "seed", "dtype", "decontaminate")
READ_IN_FULL = 64 * 2**20  # bytes; what is larger in a folder is known by its size and time


@dataclass(frozen=True)
class Planned:
    """One stage of a run: what it starts from, and the hash of all that decides its result."""

    index: int
    stage: Stage
    folder: Path
    start: str
    inputs: dict[str, Any]
    done: bool = False

    @property
    def name(self) -> str:
        return stage_name(self.stage)

    @property
    def key(self) -> str:
        return digest(json.dumps(self.inputs, sort_keys=True, default=str).encode())


def plan_stages(state: Run, chosen: list[int], again: bool) -> list[Planned]:
    """Decide for every chosen stage whether it is done, goes on, or begins.

    Raises:
        RunError: its folder holds another recipe's work, or a stage it starts from is missing.
    """
    recipe, plan = state.recipe, []
    keys: dict[str, str] = {}
    policy = "base"
    for i, stage in enumerate(recipe.stages):
        name, parent = stage_name(stage), stage.start or policy
        folder, start, before = state.folder.stage(i, name), state.base_path, None
        if parent != "base":
            before = index_of(recipe, parent)
            start = str(state.folder.stage(before, parent) / "model")
        item = Planned(i, stage, folder, start, stage_inputs(state, stage, keys.get(parent)))
        keys[name] = item.key
        if stage.kind != "reward":
            policy = name
        if i not in chosen:
            continue
        manifest = None if again else state.folder.manifest(folder)
        if manifest and manifest.get("key") != item.key:
            if state.folder.trained(folder):
                raise RunError(changed(folder, manifest.get("inputs", {}), item.inputs, name))
            manifest = None
        if again and folder.exists() and state.main:
            state.folder.set_aside(folder)
        if before is not None and before not in chosen and not Path(start).is_dir():
            raise RunError(
                f"stage {name} starts from stage {parent}, which has not been run in "
                f"{state.folder.path}; run it first"
            )
        plan.append(replace(item, done=bool(manifest and manifest.get("status") == "done")))
    return plan


def index_of(recipe: Recipe, name: str) -> int:
    """Index of the stage of this name."""
    return [stage_name(s) for s in recipe.stages].index(name)


def stage_inputs(state: Run, stage: Stage, parent_key: str | None) -> dict[str, Any]:
    """All that decides a stage's result: its settings, its data, and what it starts from."""
    settings = next(iter(to_dict(stage).values()))
    paths = [s.path for s in stage.datasets if not s.path.startswith(PREFIX)]
    return {
        "stage": {name: value for name, value in settings.items() if name not in COSMETIC},
        "files": {path: mark for path in paths if (mark := fingerprint(path))},
        "recipe": {name: getattr(state.recipe, name) for name in SHARED},
        "parent": parent_key,
        "smoke": state.smoke,
    }


def fingerprint(path: str) -> str | None:
    """Hash of a local file's bytes, or of a folder's files; `None` when there is neither.

    A folder's files count with their names and bytes, large ones with their size and the time of
    their last change. Hidden ones do not count: tools keep notes of their own beside the data.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return file_digest(root)
    if not root.is_dir():
        return None
    found = {}
    for file in root.rglob("*"):
        name = file.relative_to(root)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            stat = file.stat()
            large = stat.st_size > READ_IN_FULL
            mark = [stat.st_size, stat.st_mtime_ns] if large else file_digest(file)
            found[name.as_posix()] = mark
    return digest(json.dumps(found, sort_keys=True).encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file that may be larger than memory.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def changed(folder: Path, before: dict[str, Any], now: dict[str, Any], name: str) -> str:
    """Which settings differ between the folder and the recipe, and what can be done."""

    def differ(old: Any, new: Any) -> bool:
        return json.dumps(old, default=str) != json.dumps(new, default=str)

    old, new = before.get("stage", {}), now["stage"]
    keys = sorted(key for key in {*old, *new} if differ(old.get(key), new.get(key)))
    keys += [key for key in ("files", "recipe", "parent") if differ(before.get(key), now[key])]
    return (
        f"{folder} was trained with other settings ({', '.join(keys) or 'unknown'}). Nothing is "
        f"written over: --from_stage {name} trains it and all after it again (the old folders are "
        "kept aside), --run_dir starts another run"
    )
