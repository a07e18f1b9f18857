"""Evaluation scores -> the cells, bars and headlines of the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from posttrain.evals.report.charts import Z95, Bar, bar
from posttrain.evals.report.folder import RunFolder, as_number


@dataclass(frozen=True)
class Score:
    """One cell: percent, the 95% margin, and the change against the base model."""

    percent: str
    margin: str
    change: str
    is_clear: bool
    details: str


def score_cell(score: dict[str, Any] | None, base: dict[str, Any] | None) -> Score | None:
    """A score in words; a change within the 95% interval of the difference is not a clear one."""
    value = as_number((score or {}).get("score"))
    if score is None or value is None:
        return None
    stderr, before = as_number(score.get("stderr")), as_number((base or {}).get("score"))
    change, is_clear = "", False
    if before is not None:
        noise = Z95 * math.hypot(stderr or 0, as_number((base or {}).get("stderr")) or 0)
        change = f"{(value - before) * 100:+.1f}".replace("-", "\N{MINUS SIGN}")
        is_clear = abs(value - before) > noise
    count = as_number(score.get("n"))
    details = [f"n = {count:,.0f}"] if count is not None else []
    details += [f"version {score['version']}"] if score.get("version") is not None else []
    margin = "" if stderr is None else f"± {Z95 * stderr * 100:.1f}"
    return Score(f"{value * 100:.1f}", margin, change, is_clear, ", ".join(details))


def task_names(run: RunFolder, evaluated: list[str]) -> list[str]:
    return list(dict.fromkeys(task for name in evaluated for task in run.evals[name]))


def score_table(run: RunFolder, evaluated: list[str]) -> list[tuple[str, list[Score | None]]]:
    """A row per task, a cell per stage."""
    base = run.evals.get("base", {})

    def cell(name: str, task: str) -> Score | None:
        return score_cell(run.evals[name].get(task), None if name == "base" else base.get(task))

    tasks = task_names(run, evaluated)
    return [(task, [cell(name, task) for name in evaluated]) for task in tasks]


def score_bars(run: RunFolder, evaluated: list[str]) -> list[tuple[str, str, list[Bar]]]:
    """Per task: its name, a sentence for those who do not see the bars, the bars."""
    charts = []
    for task in task_names(run, evaluated):
        bars = []
        for name in evaluated:
            score = run.evals[name].get(task, {})
            value = as_number(score.get("score"))
            if value is not None:
                role = "base" if name == "base" else "last" if name == evaluated[-1] else "middle"
                bars.append(bar(name, role, value, as_number(score.get("stderr"))))
        if bars:
            words = ", ".join(f"{b.label} {b.score:.1f}%" for b in bars)
            charts.append((task, f"Score on {task}: {words}", bars))
    return charts


def headlines(run: RunFolder, evaluated: list[str]) -> list[tuple[str, str, Score, Score | None]]:
    """Per task: its name, the last stage that was scored on it, that score, the base's."""
    base = run.evals.get("base", {})
    found = []
    for task in task_names(run, evaluated):
        stages = [name for name in evaluated if name != "base" and task in run.evals[name]]
        if stages and (cell := score_cell(run.evals[stages[-1]][task], base.get(task))):
            found.append((task, stages[-1], cell, score_cell(base.get(task), None)))
    return found
