"""Scores of one task: mean, standard error, and the rows behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from posttrain.formats import Row


class TaskRows(list[Row]):
    """Rows of a task.

    Attributes:
        left_out: why raw rows are not among them -> how many.
    """

    left_out: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Result:
    """Score of one task with the rows behind it.

    Attributes:
        score: mean over rows, 0 to 1; stderr: its standard error; n: rows.
        transcripts: per row prompt, completion, score, reason, ground_truth.
        more: what else the task measures, by name.
    """

    score: float
    n: int
    stderr: float
    version: str
    transcripts: list[Row]
    more: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """What `report.json` holds."""
        own = {"score": self.score, "n": self.n, "stderr": self.stderr, "version": self.version}
        return own | dict(self.more)


def summarise(scores: Sequence[float], version: str, transcripts: list[Row]) -> Result:
    """Mean and standard error (sample standard deviation / sqrt(n))."""
    n = len(scores)
    mean = sum(scores) / n
    variance = sum((s - mean) ** 2 for s in scores) / (n - 1) if n > 1 else 0.0
    return Result(mean, n, (variance / n) ** 0.5, version, transcripts)
