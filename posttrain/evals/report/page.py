"""What the report shows, in which order and in which words."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from posttrain.errors import RunError
from posttrain.evals.report.charts import number
from posttrain.evals.report.curves import Curves, Palette, stage_curves
from posttrain.evals.report.folder import (
    RunFolder,
    as_count,
    as_number,
    mapping,
    read_run_folder,
)
from posttrain.evals.report.scores import headlines, score_bars, score_table
from posttrain.evals.report.transcript import sheet

STATUS = {"done": "✓", "failed": "✗", "interrupted": "‖"}
LONGEST_TEXT = 6000
LONGEST_TEXT_OTHERS = 1500

# Control characters would be dropped or misread by a browser: show them as their pictures.
PICTURES = {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"} | {0x7F: 0x2421}


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
    html = render(read_run_folder(run_dir))
    target = run_dir / "report.html"
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=run_dir, prefix=".report-", suffix=".html")
        with os.fdopen(handle, "wb") as file:
            file.write(html.encode("utf-8", errors="replace"))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error}; free space or permit it") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return target


def render(run: RunFolder) -> str:
    """The page as text."""
    loader = jinja2.PackageLoader("posttrain.evals.report", ".")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    environment.filters["number"] = number
    css, _, _ = loader.get_source(environment, "style.css")
    palette = Palette()
    evaluated = run.in_order(run.evals)
    return environment.get_template("page.html.jinja").render(
        run=run,
        css=css,
        summary=summary(run),
        notes=[*run.notes, *warnings(run)],
        headlines=headlines(run, evaluated),
        evaluated=evaluated,
        table=score_table(run, evaluated),
        bars=score_bars(run, evaluated),
        stages=[stage_row(stage) for stage in run.stages],
        curves=all_curves(run, palette),
        mixtures=[(name, mixture(run.manifests[name])) for name in run.in_order(run.manifests)],
        transcripts=all_transcripts(run),
        environment=list(flatten(run.environment)),
    )


def _visible(value: Any) -> Any:
    return value.translate(PICTURES) if type(value) is str else value


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


def mixture(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The sources of one stage, with the share of the tokens that each of them trains."""
    sources = mapping(manifest.get("mixture")).get("sources")
    sources = [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []
    keys = ("rows_read", "rows_taken", "tokens", "trained_tokens")
    sums = {key: sum(as_number(s.get(key)) or 0 for s in sources) for key in keys}
    weigh = next((k for k in ("trained_tokens", "tokens", "rows_taken") if sums[k]), "rows_taken")
    rows = []
    for source in sources:
        dropped = mapping(source.get("dropped"))
        share = 100 * (as_number(source.get(weigh)) or 0) / (sums[weigh] or 1)
        rows.append(
            {
                "source": str(source.get("source") or source.get("path") or "unnamed"),
                "path": str(source.get("path") or ""),
                "dropped": [(str(reason), as_count(count)) for reason, count in dropped.items()],
                "share": round(share, 1),
                **{key: as_count(source.get(key)) for key in keys},
            }
        )
    if len(rows) > 1:
        totals = {key: as_count(sums[key]) if sums[key] else "—" for key in keys}
        rows.append({"source": "all", "path": "", "dropped": [], "share": None, **totals})
    return rows


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
