"""Series and scores -> the geometry of a chart. The template draws it and escapes every text.

Line charts are as wide as their box: x runs from 0 to `WIDTH` and is stretched, y is in pixels,
and texts stand outside of the drawing, so that they keep their size on any screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from posttrain.evals.report.series import SMOOTH_ABOVE, Series, quantile

WIDTH = 1000
LABEL_GAP = 17
Z95 = 1.96


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: its smoothed path, the raw one behind, and the label at its end."""

    name: str
    colour: str
    path: str
    raw: str
    dashed: bool
    value: str
    label_y: float


@dataclass(frozen=True)
class Band:
    """A vertical slice that shows `text` under the pointer."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    summary: str
    note: str
    height: int
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bands: list[Band]


@dataclass(frozen=True)
class Bar:
    """A score with its 95% interval, all in percent of the axis; `low` is None without a stderr."""

    label: str
    role: str
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Stroke:
    """How one series of a chart is drawn."""

    series: Series
    label: str = ""
    colour: str = "accent"
    dashed: bool = False


@dataclass(frozen=True)
class Scale:
    """Values -> positions between 0 and `length`, linear or logarithmic."""

    low: float
    high: float
    length: float
    log: bool = False
    flip: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.length * (1 - share if self.flip else share)


def number(value: float | None) -> str:
    """A number as a reader wants it: four significant digits at most, no exponent without need."""
    if value is None or math.isnan(value):
        return "—"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values (1, 2, 5 times a power of ten) from `low` to `high`, about `count` of them."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next((m * power for m in (1, 2, 5) if span / (m * power) < count + 1), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside the range; with 2 and 5 between them when there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1,) if len(powers) > 3 else (1, 2, 5) if len(powers) == 3 else (1, 2, 3, 5, 7)
    ticks = [m * 10.0**p for p in powers for m in marks]
    return [t for t in ticks if low <= t <= high]


def line_chart(
    title: str,
    strokes: Sequence[Stroke],
    *,
    height: int = 280,
    points: int = 400,
    bands: int = 50,
    steps: tuple[float, float] | None = None,
    values: tuple[float, float] | None = None,
) -> Chart | None:
    """Draw `strokes` over their steps; `None` when there is not one finite value.

    Args:
        title: heading of the chart.
        strokes: what to draw, back to front.
        height: of the drawing, in pixels.
        points: at most about so many per path.
        bands: at most so many hover slices.
        steps: range of the x axis; default: that of the series.
        values: range of the y axis; default: that of the series.
    """
    strokes = [stroke for stroke in strokes if stroke.series.last() is not None]
    if not strokes:
        return None
    smooth = [stroke.series.smoothed() for stroke in strokes]
    log = is_skewed([s.series for s in strokes])
    low, high = values or value_range([s.series for s in strokes], smooth, log)
    y = Scale(low, high, height, log=log, flip=True)
    x = Scale(*(steps or step_range(s.series for s in strokes)), WIDTH)
    ends = spread([y(s.last() or 0.0) for s in smooth], height)
    triples = zip(strokes, smooth, ends, strict=True)
    ticks = log_ticks(low, high) if log else nice_ticks(low, high, 5)
    levels = {value for stroke in strokes for value in stroke.series.finite()}
    if len(levels) == 1:
        ticks = [*levels]
    sentences = [describe(s, c) for s, c in zip(strokes, smooth, strict=True)]
    return Chart(
        title=title,
        summary=f"{title}. {' '.join(sentences)}",
        note=", ".join(chart_notes(strokes, low, high, log)),
        height=height,
        lines=[draw(stroke, curve, x, y, points, end) for stroke, curve, end in triples],
        x_ticks=[Tick(round(x(t) / WIDTH * 100, 2), f"{t:,.0f}") for t in step_ticks(x)],
        y_ticks=[Tick(round(y(t), 1), number(t)) for t in ticks],
        bands=hover_bands(strokes, smooth, x, bands),
    )


def draw(stroke: Stroke, curve: Series, x: Scale, y: Scale, points: int, label_y: float) -> Line:
    """One curve, with the raw values behind it where it was smoothed."""
    is_smoothed = curve is not stroke.series
    return Line(
        name=stroke.label,
        colour=stroke.colour,
        path=path(curve.thinned(points), x, y),
        raw=path(stroke.series.thinned(points), x, y) if is_smoothed else "",
        dashed=stroke.dashed,
        value=number(curve.last()),
        label_y=round(label_y, 1),
    )


def step_range(series: Iterable[Series]) -> tuple[float, float]:
    """From the first to the last logged step of all `series`."""
    ends = [(s.steps[0], s.steps[-1]) for s in series]
    return min(first for first, _ in ends), max(final for _, final in ends)


def step_ticks(x: Scale) -> list[float]:
    return [t for t in nice_ticks(x.low, x.high, 3) if t == int(t)] or [x.low]


def value_range(
    raw: Sequence[Series], smooth: Sequence[Series], log: bool = False
) -> tuple[float, float]:
    """All that was logged; in long series, spikes far outside of the rest are left out.

    A range that nearly reaches zero is drawn from zero.
    """
    low, high = math.inf, -math.inf
    for series, curve in zip(raw, smooth, strict=True):
        values = sorted(series.finite())
        if len(values) > SMOOTH_ABOVE:
            common = [quantile(values, 0.003), quantile(values, 0.997), *curve.finite()]
            reach = 0.5 * (max(common) - min(common))
            least, most = min(common) - reach, max(common) + reach
            values = [*common, *(v for v in values if least <= v <= most)]
        low, high = min(low, *values), max(high, *values)
    if high == low:
        pad = abs(high) / 10 or 1.0
        return low - pad, high + pad
    from_zero = not log and 0 <= low < (high - low) / 4
    return (0.0 if from_zero else low), high


def is_skewed(series: Iterable[Series]) -> bool:
    """Positive values whose largest dwarf the median: only a logarithmic axis shows both."""
    values = sorted(value for s in series for value in s.finite())
    return bool(values) and values[0] > 0 and quantile(values, 0.998) > 30 * quantile(values, 0.5)


def path(series: Series, x: Scale, y: Scale) -> str:
    """An SVG path that breaks where a value is missing; a lone point is a dot of zero length."""
    parts: list[str] = []
    run = 0
    for step, value in zip(series.steps, series.values, strict=True):
        if math.isnan(value):
            parts += ["h0"] if run == 1 else []
            run = 0
            continue
        parts.append(f"{'L' if run else 'M'}{x(step):.1f} {y(value):.1f}")
        run += 1
    return "".join([*parts, "h0"] if run == 1 else parts)


def spread(positions: Sequence[float], height: float, gap: float = LABEL_GAP) -> list[float]:
    """Push labels apart to `gap`, keeping their order and staying inside of the drawing."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = [0.0] * len(positions)
    above = -math.inf
    for i in order:
        placed[i] = above = max(positions[i], above + gap)
    below = max(height, gap * (len(order) - 1)) + gap
    for i in reversed(order):
        placed[i] = below = min(placed[i], below - gap)
    return placed


def hover_bands(
    strokes: Sequence[Stroke], smooth: Sequence[Series], x: Scale, count: int
) -> list[Band]:
    """Slices around logged steps, which meet half-way between them."""
    steps = max(smooth, key=lambda series: len(series.steps)).steps
    count = min(count, len(steps))
    picked = [steps[i * (len(steps) - 1) // max(1, count - 1)] for i in range(count)]
    edges = [x.low, *((a + b) / 2 for a, b in pairwise(picked)), x.high]
    bands = []
    for step, low, high in zip(picked, edges, edges[1:], strict=False):
        reach = max(step - low, high - step)
        found = [(s.label, c.nearest(step, reach)) for s, c in zip(strokes, smooth, strict=True)]
        texts = [f"{label} {number(value)}".strip() for label, value in found if value is not None]
        if texts:
            left, right = (x(low), x(high)) if high > low else (0, WIDTH)
            text = "\n".join([f"step {step:,.0f}", *texts])
            bands.append(Band(round(left, 1), round(right - left, 1), text))
    return bands


def describe(stroke: Stroke, curve: Series) -> str:
    """One sentence for a reader who does not see the curve."""
    known = curve.finite()
    name = f"{stroke.label}: from" if stroke.label else "From"
    span = f"{number(known[0])} to {number(known[-1])}"
    return f"{name} {span} over {len(curve.steps):,} logged steps."


def chart_notes(strokes: Sequence[Stroke], low: float, high: float, log: bool) -> Iterable[str]:
    """What the drawing does not show by itself."""
    if log:
        yield "log scale"
    values = [value for stroke in strokes for value in stroke.series.finite()]
    tallest, deepest = max(values), min(values)
    if tallest > high:
        yield f"spikes up to {number(tallest)} cut off"
    if deepest < low:
        yield f"dips down to {number(deepest)} cut off"
    missing = sum(len(stroke.series.gaps()) for stroke in strokes)
    if missing:
        yield f"{missing:,} value(s) not finite"


def bar(label: str, role: str, score: float, stderr: float | None) -> Bar:
    """A score (0 to 1) as a bar on an axis of 0 to 100, with 1.96 standard errors on each side."""
    percent = min(max(score, 0.0), 1.0) * 100
    if stderr is None:
        return Bar(label, role, round(percent, 2), None, None)
    low, high = (score - Z95 * stderr) * 100, (score + Z95 * stderr) * 100
    return Bar(label, role, round(percent, 2), round(max(low, 0), 2), round(min(high, 100), 2))
