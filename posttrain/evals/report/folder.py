"""What a run folder holds, read with patience: any piece may be missing, cut short or damaged.

Nothing here raises over the content of a file. What could not be read is said in
`RunFolder.notes`, which the report prints at its top.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.evals.report.series import Series

SHOWN_TRANSCRIPTS = 10


@dataclass(frozen=True)
class Transcripts:
    """The first transcripts of one task, and how many the file holds."""

    task: str
    rows: list[dict[str, Any]]
    total: int


@dataclass
class RunFolder:
    """Everything that the report draws from.

    Attributes:
        metrics: stage -> key -> series, in the order of the log.
        manifests: stage -> its manifest.
        transcripts: stage (or `base`) -> tasks.
        rollouts: stage -> the folder in which its completions are written down.
        notes: what is missing or could not be read, one sentence each.
    """

    name: str
    stages: list[dict[str, Any]] = field(default_factory=list)
    evals: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    metrics: dict[str, dict[str, Series]] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    transcripts: dict[str, list[Transcripts]] = field(default_factory=dict)
    rollouts: dict[str, Path] = field(default_factory=dict)
    recipe: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def stage_order(self) -> list[str]:
        """Every stage that left a trace: the report's order first, then folders, then the log."""
        names = [stage["name"] for stage in self.stages]
        return list(dict.fromkeys([*names, *self.manifests, *self.metrics]))

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Sort `names` as base, then the stages in order, then anything else."""
        rank = {name: i for i, name in enumerate(["base", *self.stage_order()])}
        return sorted(names, key=lambda name: rank.get(name, len(rank)))


def read_run_folder(run_dir: Path) -> RunFolder:
    """Read all that `run_dir` holds."""
    run = RunFolder(name=run_dir.resolve().name)
    _read_report(run, run_dir / "report.json")
    _read_metrics(run, run_dir / "metrics.jsonl")
    for path in sorted(run_dir.glob("*-*/manifest.json"), key=_folder_number):
        run.manifests[path.parent.name.partition("-")[2]] = _read_object(run, path)
    for path in sorted(run_dir.glob("transcripts/*/*.jsonl")):
        run.transcripts.setdefault(path.parent.name, []).append(_read_transcripts(run, path))
    for path in sorted(run_dir.glob("*-*/rollouts"), key=_folder_number):
        if path.is_dir():
            run.rollouts[path.parent.name.partition("-")[2]] = path
    recipe = run_dir / "recipe.resolved.yaml"
    if recipe.is_file():
        run.recipe = recipe.read_text(encoding="utf-8", errors="replace")
    if (run_dir / "environment.json").is_file():
        run.environment = _read_object(run, run_dir / "environment.json")
    return run


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_number(value: Any) -> float | None:
    """`value` where it is a finite number, else `None`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else None


def as_count(value: Any) -> str:
    """A whole number for a table; a dash where there is none."""
    number = as_number(value)
    return "—" if number is None else f"{number:,.0f}"


def _folder_number(path: Path) -> tuple[int, str]:
    number = path.parent.name.partition("-")[0]
    return (int(number) if number.isdecimal() else 10**6, path.parent.name)


def _read_object(run: RunFolder, path: Path) -> dict[str, Any]:
    where = path.name if path.name != "manifest.json" else f"{path.parent.name}/{path.name}"
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        run.notes.append(f"{where} could not be read: {error}.")
        return {}
    if not isinstance(value, dict):
        run.notes.append(f"{where} holds no JSON object.")
        return {}
    return value


def _read_report(run: RunFolder, path: Path) -> None:
    if not path.is_file():
        run.notes.append("report.json is missing: scores and stage states are unknown.")
        return
    report = _read_object(run, path)
    if isinstance(report.get("name"), str):
        run.name = report["name"]
    stages = report.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        if isinstance(stage, dict) and isinstance(stage.get("name"), str):
            run.stages.append(stage)
    for stage_name, tasks in mapping(report.get("evals")).items():
        scores = {task: score for task, score in mapping(tasks).items() if isinstance(score, dict)}
        if scores:
            run.evals[stage_name] = scores


def _objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON object of each non-empty line, or `None` where it holds none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield value if isinstance(value, dict) else None


def _read_metrics(run: RunFolder, path: Path) -> None:
    if not path.is_file():
        run.notes.append("metrics.jsonl is missing: there are no curves.")
        return
    damaged = 0
    for row in _objects(path):
        name, step = (row.get("stage"), as_number(row.get("step"))) if row else (None, None)
        if row is None or step is None or not isinstance(name, str):
            damaged += 1
            continue
        stage = run.metrics.setdefault(name, {})
        for key, value in row.items():
            if key in ("stage", "step") or not (value is None or _is_number(value)):
                continue
            if key not in stage:
                stage[key] = Series(key)
            stage[key].add(step, value)
    if damaged:
        run.notes.append(f"{damaged} line(s) of metrics.jsonl could not be read and were left out.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_transcripts(run: RunFolder, path: Path) -> Transcripts:
    rows: list[dict[str, Any]] = []
    total = damaged = 0
    for row in _objects(path):
        total += 1
        if row is None:
            damaged += 1
        elif len(rows) < SHOWN_TRANSCRIPTS:
            rows.append(row)
    if damaged:
        run.notes.append(
            f"{damaged} line(s) of transcripts/{path.parent.name}/{path.name} could not be read."
        )
    return Transcripts(path.stem, rows, total)
