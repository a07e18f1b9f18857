"""`posttrain data stats`: the manifest of every stage as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.evals.report.data import (
    MINUS,
    Source,
    View,
    data_notes,
    extra_cells,
    percent,
    summary_line,
    summed,
    view,
)
from posttrain.evals.report.folder import as_count, mapping
from posttrain.evals.report.html import visible
from posttrain.evals.report.lengths import bins_of

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = {ord(MINUS): "-", ord("—"): "-"}
SPARK = 20  # characters of a histogram
QUANTILES = ("mean", "min", "p50", "p95", "max")
MOST_REASONS = 12
Words = Callable[[Any], Text]


def tables(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print every stage: sources, lengths, losses by step and reason, contamination.

    Args:
        found: stage -> its manifest, as `posttrain data stats` gathers them.
        console: where to print; default: stdout, 80 columns wide where that is no terminal.
    """
    console = console or Console(highlight=False)
    words = words_for(console.encoding)
    for stage, manifest in found.items():
        shown = view(mapping(manifest))
        console.print()
        console.print(words(f"{stage}: {summary_line(shown.sources)}"), style="bold")
        for note in data_notes(stage, shown):
            console.print(words(note), style="yellow")
        if not shown.sources:
            console.print("Its manifest names no source.", style="dim")
            continue
        made = [
            sources_table(shown, words),
            lengths_table(shown, words, console.encoding),
            steps_table(shown, words),
            reasons_table(shown, words),
            contamination_table(shown, words),
        ]
        for table in made:
            if table is not None and table.row_count:
                console.print()
                console.print(table)
        console.print(compared(shown), style="dim")


def words_for(encoding: str) -> Words:
    """A cell from any text: on one line, no markup, no control characters, printable there."""

    def words(value: Any) -> Text:
        line = visible(" ".join(str(value).split()))
        if not encoding.lower().startswith("utf"):
            line = line.translate(ASCII)
        return Text(line.encode(encoding, "replace").decode(encoding))

    return words


def new_table(title: str, texts: Sequence[str], counts: Sequence[str]) -> Table:
    """A table whose first columns are texts that may wrap and whose others are numbers."""
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold", min_width=8)
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def sources_table(shown: View, words: Words) -> Table:
    """Rows, tokens and shares of every source, and of all."""
    names = ("Rows", "Dropped", "Tokens", "Share", "Trained", "Truncated")
    table = new_table("Sources", ["Source"], names)
    tokens = summed(shown.sources, "tokens")

    def line(name: str, source: Source, dropped: float) -> list[Text]:
        cells = extra_cells(source, tokens)
        shares = [cells["Share of tokens"], cells["Trained part"]]
        counts = [source.rows, dropped, source.counts["tokens"]]
        cut = as_count(source.counts["truncated"])
        return [words(cell) for cell in (name, *map(as_count, counts), *shares, cut)]

    for source in shown.sources:
        table.add_row(*line(source.name, source, source.dropped))
    if len(shown.sources) > 1:
        whole = Source.of_all(shown.sources)
        dropped = sum(source.dropped for source in shown.sources)
        table.add_row(*line("all", whole, dropped), style="bold")
    return table


def lengths_table(shown: View, words: Words, encoding: str) -> Table:
    """Tokens per row; the histogram of a source runs from its shortest to its longest row."""
    drawn = encoding.lower().startswith("utf")
    table = new_table("Tokens per row", ["Source"], QUANTILES)
    if drawn:
        table.add_column("min to max", no_wrap=True)
    for source in shown.sources:
        if source.lengths:
            cells = [words(as_count(source.lengths.get(key))) for key in QUANTILES]
            cells += [Text(sparkline(source.lengths))] if drawn else []
            table.add_row(words(source.name), *cells)
    return table


def sparkline(lengths: Any) -> str:
    """The histogram in block characters: rows per length, a bin that is not empty is seen."""
    bins = bins_of(lengths)
    if not bins:
        return ""
    low, span = bins[0].first, bins[-1].last + 1 - bins[0].first
    wide = min(SPARK, span)
    heights = []
    for i in range(wide):
        left, right = low + span * i / wide, low + span * (i + 1) / wide
        over = ((min(right, b.last + 1) - max(left, b.first), b.height) for b in bins)
        heights.append(sum(part * height for part, height in over if part > 0))
    top = max(heights)
    levels = len(BLOCKS) - 1
    return "".join(BLOCKS[math.ceil(h / top * levels)] for h in heights)


def steps_table(shown: View, words: Words) -> Table:
    """The steps that changed the number of rows of a source."""
    table = new_table("Rows lost and gained", ["Source", "Step"], ["Before", "After", "Change"])
    for source in shown.sources:
        name = source.name
        for step in source.steps:
            if step.change:
                cells = (as_count(step.before), as_count(step.after), step.change)
                table.add_row(*(words(cell) for cell in (name, step.name, *cells)))
                name = ""  # once is enough
    return table


def reasons_table(shown: View, words: Words) -> Table:
    """Why rows were dropped, flagged or repaired, the most frequent first."""
    table = new_table("Reasons", ["Reason", "Sources"], ["Rows"])
    for tally in shown.tallies:
        table.add_row(Text(tally.title, style="italic"), "", "")
        for reason, rows, by in tally.rows[:MOST_REASONS]:
            names = ", ".join(name for name, _ in by)
            table.add_row(words(reason), words(names), words(as_count(rows)))
        rest = len(tally.rows[MOST_REASONS:]) + tally.left_out
        if rest:
            table.add_row(Text(f"and {rest} rarer ones, see --json", style="dim"), "", "")
    return table


def contamination_table(shown: View, words: Words) -> Table:
    """The pairs of a source and an evaluation set that share something."""
    title = "Contamination, as found before any row was dropped for it"
    table = new_table(
        title, ["Source", "Evaluation set"], ["Its rows", "Share", "In rows", "Share"]
    )
    for overlap in shown.matrix.overlaps():
        if overlap.eval_rows or overlap.train_rows:
            held = (as_count(overlap.eval_rows), percent(overlap.eval_share))
            holding = (as_count(overlap.train_rows), percent(overlap.train_share))
            cells = (overlap.source, overlap.eval_set, *held, *holding)
            style = "bold red" if overlap.contaminated else ""
            table.add_row(*(words(cell) for cell in cells), style=style)
    return table


def compared(shown: View) -> str:
    """How much was compared with evaluation sets."""
    pairs = shown.matrix.overlaps()
    if not pairs:
        return "No comparison with an evaluation set is recorded."
    clean = sum(not (pair.eval_rows or pair.train_rows) for pair in pairs)
    return f"{clean} of {len(pairs)} pairs of source and evaluation set share nothing."
