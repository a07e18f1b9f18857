"""What a run will do: where each stage starts, what decides its result, whether it is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from posttrain.errors import RunError
from posttrain.pipeline.base import REWARD, STAND_IN
from posttrain.pipeline.check import named_models
from posttrain.recipe import Recipe, Stage, stage_name, to_dict
from posttrain.sources import PREFIX
from posttrain.sources.files import digest

if TYPE_CHECKING:
    from posttrain.pipeline.run import Run

# what a stage may change without its result being another one
COSMETIC = (
    "logging_steps", "save_steps", "save_total_limit", "gradient_checkpointing",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_tokens_per_device",
    "eval_steps", "max_skipped_steps", "torch_compile", "reward_workers", "max_wrong_gold",
    "save_rollouts",
)  # fmt: skip
SHARED = ("model_name_or_path", "model_revision", "chat_template", "seed", "dtype", "decontaminate")
READ_IN_FULL = 64 * 2**20  # bytes; what is larger in a folder is known by its size and time


@dataclass(frozen=True)
class Planned:
    """One stage of a run: what it starts from, and the hash of all that decides its result.

    Attributes:
        resolved: the stage with paths in the place of the names of other models.
    """

    index: int
    stage: Stage
    resolved: Stage
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
        paths = {model: path_of(state, model) for model in named_models(stage)}
        inputs = stage_inputs(state, stage, keys.get(parent), models_inputs(paths, keys))
        item = Planned(i, stage, with_paths(stage, paths), folder, start, inputs)
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
        asked = {parent: start, **{m: path for m, path in paths.items() if m in keys}}
        for other, path in asked.items():
            if other in keys and index_of(recipe, other) not in chosen and not Path(path).is_dir():
                does = "starts from" if other == parent else "asks for"
                raise RunError(
                    f"stage {name} {does} stage {other}, which has not been run in "
                    f"{state.folder.path}; run it first"
                )
        plan.append(replace(item, done=bool(manifest and manifest.get("status") == "done")))
    return plan


def index_of(recipe: Recipe, name: str) -> int:
    """Index of the stage of this name."""
    return [stage_name(s) for s in recipe.stages].index(name)


def path_of(state: Run, name: str) -> str:
    """Where a model lies: of an earlier stage, of the base, or where its name says."""
    names = [stage_name(stage) for stage in state.recipe.stages]
    if name in names:
        return str(state.folder.stage(names.index(name), name) / "model")
    if name == "base":
        return state.base_path
    return str(Path(state.base_path) / REWARD) if name == STAND_IN else name


def models_inputs(paths: dict[str, str], keys: dict[str, str]) -> dict[str, Any]:
    """What decides the models that a stage names: keys of stages, the contents of folders."""
    return {name: keys.get(name) or fingerprint(path) for name, path in paths.items()}


def with_paths(stage: Any, paths: dict[str, str]) -> Stage:
    """The stage with paths in the place of names."""
    if stage.kind == "dpo" and paths:
        return replace(stage, ref_model_name_or_path=paths[stage.ref_model_name_or_path])
    if stage.kind == "rlvr" and paths:
        functions = tuple(paths.get(name, name) for name in stage.reward_funcs)
        value = paths.get(stage.value_model or "", stage.value_model)
        return replace(stage, reward_funcs=functions, value_model=value)
    return cast(Stage, stage)


def stage_inputs(
    state: Run, stage: Stage, parent_key: str | None, models: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All that decides a stage's result: its settings, its data, and what it starts from."""
    settings = next(iter(to_dict(stage).values()))
    paths = [s.path for s in stage.datasets if not s.path.startswith(PREFIX)]
    return {
        "stage": {name: value for name, value in settings.items() if name not in COSMETIC},
        "files": {path: mark for path in paths if (mark := fingerprint(path))},
        "recipe": {name: getattr(state.recipe, name) for name in SHARED},
        "parent": parent_key,
        "smoke": state.smoke,
        **({"models": models} if models else {}),
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
    rest = ("files", "recipe", "parent", "models")
    keys += [key for key in rest if differ(before.get(key), now.get(key))]
    return (
        f"{folder} was trained with other settings ({', '.join(keys) or 'unknown'}). Nothing is "
        f"written over: --from_stage {name} trains it and all after it again (the old folders are "
        "kept aside), --run_dir starts another run"
    )
