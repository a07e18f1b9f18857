"""run(recipe): check everything, build all data, then train and evaluate stage after stage."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from posttrain.errors import RecipeError, RunError, nearest
from posttrain.evals.report import write_report
from posttrain.mixture import Guard
from posttrain.mixture.lock import lock
from posttrain.models import load_config, load_tokenizer
from posttrain.pipeline import base, hardware
from posttrain.pipeline.check import (
    check,
    check_context,
    check_references,
    hub_options,
    read_recipe,
)
from posttrain.pipeline.counting import say
from posttrain.pipeline.data import Opener, build_stage, describe, held_out_rows, stage_rows
from posttrain.pipeline.evaluate import evaluate_stage, prepare_tasks
from posttrain.pipeline.folder import (
    MANIFEST,
    RECIPE,
    RUNNING,
    RunFolder,
    read_json,
    read_object,
    saved_steps,
    write_json,
    write_text,
)
from posttrain.pipeline.guard import guard_of
from posttrain.pipeline.interrupt import SaveWhenStopped, Signals, listening
from posttrain.pipeline.plan import Planned, fingerprint, plan_stages
from posttrain.pipeline.processes import processes
from posttrain.pipeline.progress import MetricsFile, Progress
from posttrain.pipeline.stage import train
from posttrain.recipe import Pretrain, Recipe, Stage, dump_recipe, stage_name
from posttrain.sources import open_source
from posttrain.sources.files import digest

PACKAGES = (
    "posttrain", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed",
    "bitsandbytes",
)  # fmt: skip


@dataclass
class Run:
    """Everything the stages of one run share."""

    recipe: Recipe
    folder: RunFolder
    hardware: hardware.Hardware
    base_path: str
    smoke: bool
    tasks: list[Any] = field(default_factory=list)
    main: bool = True
    signals: Signals = field(default_factory=Signals)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def opener(self, stage: Stage) -> Opener:
        """How the stage's sources are opened."""
        return base.smoke_opener(stage.row_kind) if self.smoke else open_source

    def say(self, line: str) -> None:
        if self.main:
            say(line)


def run(
    recipe_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    stage: str | None = None,
    from_stage: str | None = None,
    smoke: bool = False,
    run_dir: str | Path | None = None,
    hardware: str | None = None,
) -> Path:
    """Run a recipe; its run folder. Finished stages are skipped, an interrupted one goes on.

    Args:
        recipe_path: the YAML file.
        overrides: `path=value` strings.
        stage: run this stage only; from_stage: train this one and all after it again.
        smoke: two steps per stage with a tiny random model, without network.
        run_dir: instead of runs/<name>.
        hardware: a name in recipes/hardware/, or a file.

    Raises:
        PosttrainError: anything the user can put right; found before training where it can be.
    """
    recipe = read_recipe(recipe_path, overrides, stage=stage)
    chosen = selected(recipe, stage, from_stage)
    if smoke:
        recipe = base.smoke_recipe(recipe)
    with processes(), listening() as signals:
        state = start(recipe, Path(recipe_path), run_dir, hardware, smoke, signals)
        try:
            with state.folder.held() if state.main else nullcontext():
                previous = previous_results(state)
                plan = plan_stages(state, chosen, again=from_stage is not None)
                execute(state, plan, previous)
        except Exception as error:
            raise full_disk(error, state.folder.path) or error from error
    return state.folder.path


def execute(state: Run, plan: list[Planned], previous: list[dict[str, Any]]) -> None:
    """Data of all stages first, then stage after stage, and a report whatever happens."""
    new = state.main and all(p.name == RUNNING for p in state.folder.path.iterdir())
    try:
        prepare(state, plan)
    except BaseException:
        if new:
            state.folder.forget_unstarted()
        raise
    try:
        evaluate_base(state)
        for item in plan:
            run_stage(state, item)
    finally:
        finish(state, previous)


def selected(recipe: Recipe, stage: str | None, from_stage: str | None) -> list[int]:
    """Indices of the stages to run."""
    names = [stage_name(s) for s in recipe.stages]
    if stage and from_stage:
        raise RecipeError("--stage and --from_stage contradict each other; give one of them")
    for option, name in (("--stage", stage), ("--from_stage", from_stage)):
        if name is not None and name not in names:
            raise RecipeError(f"{option}: unknown stage {name!r}{nearest(name, names)}")
    if stage:
        return [names.index(stage)]
    return list(range(names.index(from_stage) if from_stage else 0, len(names)))


def start(
    recipe: Recipe,
    path: Path,
    run_dir: str | Path | None,
    hardware_name: str | None,
    smoke: bool,
    signals: Signals,
) -> Run:
    """Check the recipe and the folder; write nothing before both are fine."""
    folder = RunFolder(Path(run_dir) if run_dir else Path("runs") / recipe.name)
    folder.inspect()
    machine = hardware.choose(hardware_name, path)
    for stage in recipe.stages:
        hardware.split_batch(stage, machine.world)
    check(recipe, path, smoke=smoke)
    for i, stage in enumerate(recipe.stages):
        folder.manifest(folder.stage(i, stage_name(stage)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    state = PartialState(cpu=not torch.cuda.is_available())
    made = smoke or isinstance(recipe.stages[0], Pretrain)
    base_path = str(folder.path / "base") if made else str(recipe.model_name_or_path)
    main = state.is_main_process
    return Run(recipe, folder, machine, base_path, smoke, main=main, signals=signals)


def prepare(state: Run, plan: list[Planned]) -> None:
    """Base model, evaluation rows and the data of every stage, before anything is trained."""
    recipe, root = state.recipe, state.folder.path
    if state.main:
        root.mkdir(parents=True, exist_ok=True)
        # it marks the folder as ours; an older one stays until all data is built
        if not (root / RECIPE).is_file():
            write_text(root / RECIPE, dump_recipe(recipe))
        if Path(state.base_path).parent == root:
            base.ensure_base(recipe, state.folder, state.smoke, state.opener)
    PartialState().wait_for_everyone()
    path = recipe.tokenizer_name_or_path or state.base_path
    tokenizer = load_tokenizer(
        path, chat_template=recipe.chat_template, **hub_options(recipe, path)
    )
    if isinstance(recipe.stages[0], Pretrain):
        check_references(recipe, tokenizer)
    config = load_config(state.base_path, **hub_options(recipe, state.base_path))
    for item in plan:
        if not state.smoke:
            check_context(item.stage, config)
    state.tasks = prepare_tasks(recipe, state.smoke)
    guard = guard_of(recipe, partial(prepare_tasks, smoke=state.smoke)) if state.main else None
    mixtures = {item.name: stage_data(state, item, tokenizer, guard) for item in plan}
    if state.main:
        locked = read_object(root / "mixture.lock") if (root / "mixture.lock").is_file() else {}
        write_json(root / "mixture.lock", locked | lock(mixtures))
        write_text(root / RECIPE, dump_recipe(recipe))
        write_json(root / "environment.json", environment(state))
    PartialState().wait_for_everyone()
    state.say(f"{recipe.name}: {state.hardware.line}; run folder {root}")


def stage_data(state: Run, item: Planned, tokenizer: Any, guard: Guard | None) -> dict[str, Any]:
    """Build a stage's data once; the other processes wait for the file that says it is whole."""
    if state.main and not built(state, item):
        data = item.folder.with_name(f".{item.folder.name}.data")
        shutil.rmtree(data, ignore_errors=True)
        opener = state.opener(item.stage)
        mixture, _ = build_stage(state.recipe, item.stage, tokenizer, data, opener, guard)
        item.folder.mkdir(parents=True, exist_ok=True)
        manifest = {
            "status": "ready",
            "kind": item.stage.kind,
            "key": item.key,
            "inputs": item.inputs,
            "mixture": mixture,
        }
        write_json(item.folder / MANIFEST, manifest)
        shutil.rmtree(item.folder / "data", ignore_errors=True)
        os.replace(data, item.folder / "data")
        os.replace(item.folder / "data" / "samples.txt", item.folder / "samples.txt")
        write_json(item.folder / MANIFEST, manifest | {"data": item.key})
        for line in describe(item.name, mixture):
            say(line)
    elif state.main and guard is not None:
        warn_unchecked(state, item, read_json(item.folder / MANIFEST)["mixture"], guard)
    while not state.main and not built(state, item):  # no collective: it would time out
        time.sleep(0.2)
    return dict(read_json(item.folder / MANIFEST)["mixture"])


def built(state: Run, item: Planned) -> bool:
    """Whether the data of a stage is there: this run's, not what an earlier recipe left."""
    found = state.folder.manifest(item.folder)
    marker = item.folder / "data" / "mixture.json"
    return bool(found and found.get("data") == item.key and marker.is_file())


def warn_unchecked(state: Run, item: Planned, mixture: dict[str, Any], guard: Guard) -> None:
    """Say so when a finished stage was never compared with a task that was added later."""
    checked = mixture.get("decontaminate", {}).get("eval_sets", {})
    new = [one.name for one in guard.finder.eval_sets if one.name not in checked]
    if new:
        names = ", ".join(new)
        state.say(
            f"{item.name}: its data was built before and not compared with {names};"
            " train it again with --from_stage, or see `posttrain data decontaminate`"
        )


def run_stage(state: Run, item: Planned) -> None:
    """Train one stage unless it is done, then evaluate it."""
    manifest = read_json(item.folder / MANIFEST)
    if item.done:
        state.say(f"{item.name}: done before, skipped")
        state.reports.append(manifest["report"])
    else:
        begin = time.monotonic()
        report: dict[str, Any] = {"name": item.name, "kind": item.stage.kind, "status": "failed"}
        report |= {"steps": 0, "seconds": 0.0, "metrics": {}}
        state.reports.append(report)
        state.say(hardware.batch_line(item.stage, state.hardware.world))
        if state.main:
            write_json(item.folder / MANIFEST, manifest | {"status": "running"})
            state.folder.forget_unfinished(item.folder)
            state.folder.need_space(folder_bytes(Path(item.start)))
        try:
            rows = stage_rows(item.folder / "data")
            metrics = state.folder.path / "metrics.jsonl"
            callbacks = [MetricsFile(metrics, item.name), Progress(item.name)]
            result = train(
                state.recipe,
                item.resolved,
                item.start,
                rows,
                item.folder,
                state.hardware,
                [*callbacks, SaveWhenStopped(state.signals)],
                held_out=held_out_rows(item.folder / "data"),
            )
            report |= result | {"status": "done"}
        except KeyboardInterrupt:
            report |= {"status": "interrupted", "steps": saved_steps(item.folder)}
            raise
        finally:
            report["seconds"] = round(time.monotonic() - begin, 1)
            if state.main:
                now = {"status": report["status"], "report": report}
                write_json(item.folder / MANIFEST, manifest | now)
    model = str(item.folder / "model")
    evaluate_stage(state, item.name, model, digest(f"{item.key} {fingerprint(model)}".encode()))


def full_disk(error: BaseException, folder: Path) -> RunError | None:
    """A readable error for a disk that filled up, whatever library met it."""
    full = any(words in str(error) for words in ("No space left", "os error 28"))
    if full or getattr(error, "errno", None) == errno.ENOSPC:
        return RunError(
            f"no space left while writing {folder}; make room and run the same command again, "
            "it goes on from the last checkpoint"
        )
    return None


def folder_bytes(folder: Path) -> int:
    """Size of the weights in a folder."""
    return sum(p.stat().st_size for p in folder.glob("*.safetensors")) if folder.is_dir() else 0


def evaluate_base(state: Run) -> None:
    """Score the model that the stack starts from; a pretrain stage's own model is the base."""
    if isinstance(state.recipe.stages[0], Pretrain):
        return
    path = state.base_path
    mark = [path, fingerprint(path) or state.recipe.model_revision]
    evaluate_stage(state, "base", path, digest(json.dumps(mark).encode()))


def previous_results(state: Run) -> list[dict[str, Any]]:
    """Reports of stages that ran before and are not run now."""
    path = state.folder.path / "report.json"
    return list(read_object(path).get("stages", [])) if path.is_file() else []


def finish(state: Run, previous: list[dict[str, Any]]) -> None:
    """Write report.json and report.html, whatever happened."""
    if not state.main or not (state.folder.path / RECIPE).is_file():
        return
    reports = {r["name"]: r for r in [*previous, *state.reports]}
    order = [stage_name(s) for s in state.recipe.stages]
    # what pretraining made is the base of all that follows
    base_name = order[0] if isinstance(state.recipe.stages[0], Pretrain) else "base"
    evals = {}
    for name in ("base", *order):
        path = state.folder.path / "evals" / f"{name}.json"
        if path.is_file():
            evals["base" if name == base_name else name] = read_json(path)["scores"]
    stages = [reports[name] for name in order if name in reports]
    report = {"name": state.recipe.name, "stages": stages, "evals": evals}
    write_json(state.folder.path / "report.json", report)
    state.say(f"report: {write_report(state.folder.path)}")


def environment(state: Run) -> dict[str, Any]:
    """What a run was made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices or [f"cpu ({os.cpu_count()} cores)"],
        "world_size": state.hardware.world,
        "hardware": state.hardware.line,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
