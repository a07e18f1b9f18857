"""The metrics of one stage -> its charts: which come first, what shares one, who gets a colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from posttrain.evals.report.charts import Chart, Stroke, line_chart, number, value_range
from posttrain.evals.report.series import Series

COLOURS = 8
MOST_LINES = 6
HELD_OUT = "held out"

FIRST = ("loss", "reward", "pass_rate")
FIRST_RLVR = ("reward", "pass_rate")
SECOND = (
    "loss",
    "accuracy",
    "rewards",
    "margin",
    "logps",
    "kl",
    "entropy",
    "completion_length",
    "truncated",
    "clip_fraction",
    "grad_norm",
    "learning_rate",
)
TITLES = {
    "grad_norm": "Gradient norm",
    "kl": "KL to the reference",
    "logps": "Log-probabilities",
    "completion_length": "Completion length (tokens)",
    "truncated": "Truncated completions",
}
BOOKKEEPING = ("epoch", "time", "timestamp", "total_flos", "train_loss", "wall_time")
BOOKKEEPING_ENDS = ("_runtime", "_per_second", "_timestamp")


@dataclass(frozen=True)
class Facets:
    """One small chart per source, all on the same axes."""

    title: str
    charts: list[Chart]


@dataclass
class Curves:
    """The charts of one stage, by the attention that they deserve."""

    main: list[Chart] = field(default_factory=list)
    facets: list[Facets] = field(default_factory=list)
    small: list[Chart] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.main or self.facets or self.small or self.more)


class Palette:
    """Gives a name the same colour in every chart of the page."""

    def __init__(self) -> None:
        self._home: dict[str, int] = {}

    def colours(self, names: Iterable[str]) -> dict[str, str]:
        """A colour per name, distinct within one chart of at most `COLOURS` names."""
        taken: set[int] = set()
        found = {}
        for name in names:
            colour = self._home.setdefault(name, len(self._home) % COLOURS)
            while colour in taken and len(taken) < COLOURS:
                colour = (colour + 1) % COLOURS
            taken.add(colour)
            found[name] = f"c{colour}"
        return found


def stage_curves(metrics: Mapping[str, Series], kind: str, palette: Palette) -> Curves:
    """Arrange what one stage logged."""
    groups = families(metrics)
    first = FIRST_RLVR if kind == "rlvr" else FIRST
    curves = Curves()
    steps = step_span(metrics.values())
    for family in first:
        place(curves.main, curves.facets, family, groups.pop(family, {}), palette, steps, 280)
    for family in [f for f in SECOND if f in groups]:
        place(curves.small, curves.facets, family, groups.pop(family), palette, steps, 110)
    for family in sorted(groups):
        place(curves.more, curves.facets, family, groups[family], palette, steps, 110)
    return curves


def families(metrics: Mapping[str, Series]) -> dict[str, dict[str, Series]]:
    """`loss`, `loss/gsm8k` and `eval_loss` are one family: "", "gsm8k" and "held out"."""
    groups: dict[str, dict[str, Series]] = {}
    for key, series in metrics.items():
        if key in BOOKKEEPING or key.endswith(BOOKKEEPING_ENDS):
            continue
        plain = key.removeprefix("eval_").removeprefix("eval/")
        family, _, name = plain.partition("/")
        if plain != key:
            name = f"{name}, {HELD_OUT}" if name else HELD_OUT
        groups.setdefault(family, {})[name] = series
    return groups


def step_span(series: Iterable[Series]) -> tuple[float, float] | None:
    """One x axis for all charts of a stage, so that they can be compared at a glance."""
    ends = [(s.steps[0], s.steps[-1]) for s in series if s.steps]
    return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else None


def place(
    charts: list[Chart],
    facets: list[Facets],
    family: str,
    group: dict[str, Series],
    palette: Palette,
    steps: tuple[float, float] | None,
    height: int,
) -> None:
    """Draw one family: together while few lines can be told apart, else as one chart per source."""
    group = {name: series for name, series in group.items() if series.last() is not None}
    total, held_out = group.pop("", None), group.pop(HELD_OUT, None)
    if total is not None and len(group) == 1:
        group = {}
    title = TITLES.get(family, family.replace("_", " ").capitalize())
    if len(group) > MOST_LINES:
        facets.append(Facets(f"{title} by source", facet_charts(group, total, steps)))
        group = {}
    colours = palette.colours(group)
    strokes = [Stroke(series, name, colours[name]) for name, series in group.items()]
    alone = not strokes and held_out is None
    if held_out is not None:
        strokes.append(Stroke(held_out, HELD_OUT, "ink", dashed=True))
    if total is not None:
        strokes.append(Stroke(total, "" if alone else "all", "accent" if alone else "ink"))
    chart = line_chart(title, strokes, height=height, steps=steps)
    if chart is not None:
        charts.append(chart)


def facet_charts(
    group: dict[str, Series], total: Series | None, steps: tuple[float, float] | None
) -> list[Chart]:
    """Small charts on shared axes, each source before the total in grey."""
    everything = [*group.values(), *([total] if total is not None else [])]
    values = value_range(everything, [series.smoothed() for series in everything])
    behind = [Stroke(total.smoothed(), "all", "faint")] if total is not None else []
    charts = []
    for name, series in group.items():
        title = f"{name} {number(series.smoothed().last())}"
        chart = line_chart(
            title,
            [*behind, Stroke(series, name)],
            height=70,
            points=120,
            bands=20,
            steps=steps,
            values=values,
        )
        if chart is not None:
            charts.append(chart)
    return charts
