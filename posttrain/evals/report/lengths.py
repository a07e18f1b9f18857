"""Token lengths of the sources -> histograms, and one strip per source on a shared axis.

A histogram of the manifest has bins of equal width, and lengths are whole numbers: a bin of width
1.5 holds one length or two, in turns. Heights are rows per length, else they would form a comb.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from posttrain.evals.report.charts import (
    WIDTH,
    Band,
    Scale,
    Tick,
    log_ticks,
    nice_ticks,
)
from posttrain.evals.report.folder import as_count, as_number, mapping

QUANTILES = ("min", "p25", "p50", "p75", "p95", "max")
FEW = 4  # sources up to which their histograms are drawn large
APART = 20  # percent of an axis between two of its labels
SLACK = 0.06  # the manifest rounds its edges to one digit


@dataclass(frozen=True)
class Bin:
    """`rows` rows of `first` to `last` tokens, both included."""

    first: int
    last: int
    rows: float

    @property
    def height(self) -> float:
        return self.rows / (self.last - self.first + 1)

    @property
    def words(self) -> str:
        span = f"{self.first:,}" if self.first == self.last else f"{self.first:,} to {self.last:,}"
        return f"{span} tokens"


@dataclass(frozen=True)
class Histogram:
    """The lengths of one source; `path` is drawn in a box of `WIDTH` times `height`."""

    name: str
    note: str
    summary: str
    height: int
    path: str
    bands: list[Band]
    x_ticks: list[Tick]


@dataclass(frozen=True)
class Strip:
    """Quantiles of one source, in percent of the shared axis; `words` says them."""

    name: str
    at: dict[str, float]
    median: str
    words: str


@dataclass(frozen=True)
class Strips:
    rows: list[Strip]
    ticks: list[Tick]
    log: bool


def bins_of(lengths: Any) -> list[Bin]:
    """The bins of a manifest's `lengths` that a whole number falls into; none if it is damaged."""
    found = mapping(lengths)
    edges, counts = numbers(found.get("edges")), numbers(found.get("counts"))
    if not counts or len(edges) != len(counts) + 1 or not edges[-1] > edges[0] or min(counts) < 0:
        return []
    width = (edges[-1] - edges[0]) / len(counts)
    even = [i * width + edges[0] for i in range(len(counts))] + edges[-1:]
    if all(abs(a - b) <= SLACK for a, b in zip(even, edges, strict=True)):
        edges = even
    starts = [math.ceil(edge) for edge in edges]
    starts[-1] = math.floor(edges[-1]) + 1  # the last bin holds its right edge
    spans = zip(pairwise(starts), counts, strict=True)
    return [Bin(first, after - 1, rows) for (first, after), rows in spans if after > first]


def numbers(value: Any) -> list[float]:
    """A list of finite numbers, or nothing."""
    found = [as_number(item) for item in value] if isinstance(value, list) else []
    return [n for n in found if n is not None] if None not in found else []


def histogram(name: str, lengths: Any, height: int = 70) -> Histogram | None:
    """Draw the lengths of one source from zero, or from nearby, to the longest row."""
    bins = bins_of(lengths)
    top = max((b.height for b in bins), default=0)
    if not top:
        return None
    low, high = bins[0].first - 0.5, bins[-1].last + 0.5
    low = 0.0 if low < high / 3 else low
    x, y = Scale(low, high, WIDTH), Scale(0, top, height, flip=True)
    parts = [f"M{x(bins[0].first - 0.5):.1f} {height}"]
    parts += [f"V{y(b.height):.1f}H{x(b.last + 0.5):.1f}" for b in bins]
    bands = []
    for b in bins:
        left, right = x(b.first - 0.5), x(b.last + 0.5)
        text = f"{b.words}: {as_count(b.rows)} rows"
        bands.append(Band(round(left, 1), round(right - left, 1), text))
    rows, median = as_count(sum(b.rows for b in bins)), as_count(mapping(lengths).get("p50"))
    tallest = max(bins, key=lambda b: b.height)
    return Histogram(
        name=name,
        note=f"{rows} rows, median {median}",
        summary=f"{name}: {rows} rows of {bins[0].first:,} to {bins[-1].last:,} tokens, "
        f"median {median}; most often {tallest.words}.",
        height=height,
        path="".join([*parts, f"V{height}Z"]),
        bands=bands,
        x_ticks=apart(x, [t for t in nice_ticks(low, high, 3) if t == int(t)]),
    )


def histograms(sources: Iterable[tuple[str, Any]]) -> list[Histogram]:
    """One per source that has lengths; large ones when there are few."""
    sources = list(sources)
    height = 130 if len(sources) <= FEW else 70
    found = [histogram(name, lengths, height) for name, lengths in sources]
    return [one for one in found if one is not None]


def strips(sources: Iterable[tuple[str, Any]]) -> Strips | None:
    """Quantiles side by side; the axis is logarithmic where sources differ by orders."""
    known = []
    for name, lengths in sources:
        given = [as_number(mapping(lengths).get(key)) for key in QUANTILES]
        marks = [value for value in given if value is not None]
        if len(marks) == len(QUANTILES) and marks == sorted(marks):
            known.append((name, dict(zip(QUANTILES, marks, strict=True))))
    if not known:
        return None
    high = max(at["max"] for _, at in known)
    low = min(at["min"] for _, at in known)
    log = low > 0 and high > 10 * min(at["p50"] for _, at in known)
    axis = Scale(low if log else 0, high, 100, log=log)
    rows = []
    for name, at in known:
        words = ", ".join(f"{key} {as_count(value)}" for key, value in at.items())
        places = {key: round(axis(mark), 2) for key, mark in at.items()}
        rows.append(Strip(name, places, as_count(at["p50"]), words))
    ticks = log_ticks(axis.low, high) if log else nice_ticks(0, high, 4)
    return Strips(rows, apart(axis, ticks), log)


def apart(axis: Scale, values: Sequence[float]) -> list[Tick]:
    """Labels in percent of the axis, without those that would touch the one before."""
    ticks: list[Tick] = []
    for value in values:
        at = round(axis(value) / axis.length * 100, 2)
        if not ticks or at - ticks[-1].at >= APART:
            ticks.append(Tick(at, f"{value:,.0f}"))
    return ticks
