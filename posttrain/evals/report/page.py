"""What the report shows, in which order and in which words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain.errors import RunError
from posttrain.evals.report.charts import number
from posttrain.evals.report.curves import Curves, Palette, stage_curves
from posttrain.evals.report.data import data_notes, view
from posttrain.evals.report.folder import (
    RunFolder,
    as_count,
    as_number,
    mapping,
    read_run_folder,
)
from posttrain.evals.report.html import render_page, write_page
from posttrain.evals.report.rollouts import Sample, moment_view, read_rollouts
from posttrain.evals.report.scores import headlines, score_bars, score_table
from posttrain.evals.report.transcript import sheet

STATUS = {"done": "✓", "failed": "✗", "interrupted": "‖"}
LONGEST_TEXT = 6000
LONGEST_TEXT_OTHERS = 1500


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into `run_dir` from what the folder holds; returns its path.

    Missing or damaged pieces are said in the report. The file is written aside and renamed, so a
    report that exists is whole.

    Raises:
        RunError: the folder does not exist or cannot be written.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise RunError(f"no run folder at {run_dir}: give the folder that `posttrain run` wrote")
    return write_page(render(read_run_folder(run_dir)), run_dir / "report.html")


def render(run: RunFolder) -> str:
    """The page as text."""
    evaluated = run.in_order(run.evals)
    mixtures = [
        (name, view(mapping(run.manifests[name].get("mixture"))))
        for name in run.in_order(run.manifests)
    ]
    data_warnings = [note for name, shown in mixtures for note in data_notes(name, shown)]
    samples = [(name, read_rollouts(run.rollouts[name])) for name in run.in_order(run.rollouts)]
    damaged = [sample.note for _, sample in samples if sample.note]
    return render_page(
        "page.html.jinja",
        run=run,
        summary=summary(run),
        notes=[*run.notes, *damaged, *warnings(run), *data_warnings],
        headlines=headlines(run, evaluated),
        evaluated=evaluated,
        table=score_table(run, evaluated),
        bars=score_bars(run, evaluated),
        stages=[stage_row(stage) for stage in run.stages],
        curves=all_curves(run, Palette()),
        mixtures=mixtures,
        transcripts=all_transcripts(run),
        rollouts=[(name, rollouts_view(sample)) for name, sample in samples if sample.moments],
        environment=list(flatten(run.environment)),
    )


def summary(run: RunFolder) -> str:
    """One line: the stages, the steps, the time, the outcome."""
    if not run.stages:
        return "No stage has been reported."
    steps = sum(int(as_number(stage.get("steps")) or 0) for stage in run.stages)
    seconds = sum(as_number(stage.get("seconds")) or 0.0 for stage in run.stages)
    names = " → ".join(stage["name"] for stage in run.stages)
    return f"{names}: {steps:,} optimizer steps in {duration(seconds)}."


def warnings(run: RunFolder) -> Iterable[str]:
    """What a reader must know before the numbers."""
    for stage in run.stages:
        status = stage.get("status") or "its state is unknown"
        if status != "done":
            yield f"Stage {stage['name']} is not done: {status}."
    for name, series in run.metrics.items():
        gaps = series["loss"].gaps() if "loss" in series else []
        if gaps:
            total = len(series["loss"].steps)
            yield (
                f"{name}: {len(gaps):,} of {total:,} logged losses are not finite, "
                f"the first at step {gaps[0]:,}."
            )
    if run.evals and "base" not in run.evals:
        yield "The base model was not evaluated: there is nothing to compare the stages with."


def stage_row(stage: dict[str, Any]) -> dict[str, Any]:
    """A line of the table of stages."""
    status = str(stage.get("status") or "unknown")
    metrics = mapping(stage.get("metrics"))
    seconds = as_number(stage.get("seconds"))
    return {
        "name": stage["name"],
        "kind": str(stage.get("kind") or "—"),
        "status": status,
        "mark": STATUS.get(status, "?"),
        "steps": as_count(stage.get("steps")),
        "time": "—" if seconds is None else duration(seconds),
        "metrics": [
            (key, number(as_number(value)) if as_number(value) is not None else str(value))
            for key, value in flatten(metrics)
        ],
    }


def all_curves(run: RunFolder, palette: Palette) -> list[tuple[str, Curves]]:
    kinds = {stage["name"]: str(stage.get("kind")) for stage in run.stages}
    found = [
        (name, stage_curves(run.metrics[name], kinds.get(name, name), palette))
        for name in run.in_order(run.metrics)
    ]
    return [(name, curves) for name, curves in found if curves]


def all_transcripts(run: RunFolder) -> list[tuple[str, list[dict[str, Any]]]]:
    """The last stage first and in full, the others cut shorter."""
    names = run.in_order(run.transcripts)[::-1]
    limits = [LONGEST_TEXT, *[LONGEST_TEXT_OTHERS] * len(names)]
    return [
        (name, [sheet(transcripts, limit) for transcripts in run.transcripts[name]])
        for name, limit in zip(names, limits, strict=False)
    ]


def rollouts_view(sample: Sample) -> dict[str, Any]:
    """A stage's rollouts in the order of training."""
    shown = f"{len(sample.moments):,} of {sample.total:,} rollouts"
    return {"shown": shown, "moments": [moment_view(moment) for moment in sample.moments]}


def flatten(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested mappings as dotted keys; lists as one line."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from flatten(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            yield f"{prefix}{key}", " ".join(str(part) for part in item)
        else:
            yield f"{prefix}{key}", item


def duration(seconds: float) -> str:
    """Seconds as `41 s`, `8 min 12 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
