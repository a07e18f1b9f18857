"""The manifest of a stage's data -> tables and plots, and the page of `posttrain data stats`.

A manifest of an older run lacks fields, a damaged one holds anything: what is missing is left out
or shown as a dash, nothing here raises over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import RunError
from posttrain.evals.report.folder import as_count, as_number, mapping
from posttrain.evals.report.html import render_page, write_page
from posttrain.evals.report.lengths import Histogram, Strips, histograms, strips

SUMMED = (
    "rows_read", "rows_taken", "rows_held_out", "rows_tokenized", "tokens", "trained_tokens",
    "truncated", "without_eos",
)  # fmt: skip
SHARES = {
    "trained_tokens": "Share of trained",
    "tokens": "Share of tokens",
    "rows_taken": "Share of rows",
}
TALLIES = {
    "dropped": "Why rows were dropped",
    "flagged": "Flagged, and kept",
    "repairs": "Repaired",
}
MOST_REASONS = 25
MOST_TRUNCATED = 0.1  # share of a source's rows above which a reader is told
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Step:
    """Rows of one source before and after a step."""

    name: str
    before: float
    after: float

    @property
    def change(self) -> str:
        """Rows lost or gained, with a sign, or nothing."""
        lost = self.before - self.after
        return f"{MINUS if lost > 0 else '+'}{abs(lost):,.0f}" if lost else ""


@dataclass(frozen=True)
class Source:
    """What a manifest says of one source; a count it does not give is `None`."""

    name: str
    path: str
    licence: str
    counts: dict[str, float | None]
    reasons: dict[str, dict[str, float]]
    steps: list[Step]
    lengths: dict[str, Any]

    @classmethod
    def of_all(cls, sources: Sequence[Source]) -> Source:
        """The counts of several sources added up."""
        known = {
            key: [s.counts[key] for s in sources if s.counts[key] is not None] for key in SUMMED
        }
        counts = {key: sum(filter(None, found)) if found else None for key, found in known.items()}
        return cls("all", "", "", counts, {kind: {} for kind in TALLIES}, [], {})

    @property
    def rows(self) -> float | None:
        """Rows that are trained on: those with tokens, or those drawn where it stopped at text."""
        tokenized = self.counts["rows_tokenized"]
        return self.counts["rows_taken"] if tokenized is None else tokenized

    @property
    def dropped(self) -> float:
        return sum(self.reasons["dropped"].values())


@dataclass(frozen=True)
class Tally:
    """How often a reason was met: (reason, rows, rows by source), the most frequent first."""

    title: str
    rows: list[tuple[str, float, list[tuple[str, float]]]]
    left_out: int


@dataclass(frozen=True)
class Overlap:
    """What one source and one evaluation set share; the shares are between 0 and 1."""

    source: str
    eval_set: str
    eval_rows: float
    eval_share: float
    train_rows: float
    train_share: float
    contaminated: bool

    @property
    def eval_percent(self) -> str:
        return percent(self.eval_share)

    @property
    def words(self) -> str:
        return (
            f"{self.source}: {as_count(self.eval_rows)} rows of {self.eval_set} "
            f"({percent(self.eval_share)}) in {as_count(self.train_rows)} of its rows "
            f"({percent(self.train_share)})"
        )


@dataclass(frozen=True)
class Matrix:
    """Sources times evaluation sets; `None` where a pair was not compared."""

    eval_sets: list[str]
    rows: list[tuple[str, list[Overlap | None]]]

    def overlaps(self) -> list[Overlap]:
        return [cell for _, cells in self.rows for cell in cells if cell is not None]


@dataclass(frozen=True)
class View:
    """All that is shown of the data of one stage."""

    sources: list[Source]
    table: dict[str, Any]
    strips: Strips | None
    histograms: list[Histogram]
    steps: tuple[list[str], list[tuple[str, list[Step | None]]]]
    tallies: list[Tally]
    matrix: Matrix
    rule: str


def view(manifest: Mapping[str, Any]) -> View:
    """Everything that the manifest of a stage tells."""
    found = read_sources(manifest)
    lengths = [(source.name, source.lengths) for source in found]
    return View(
        sources=found,
        table=source_table(found),
        strips=strips(lengths) if len(found) > 1 else None,
        histograms=histograms(lengths),
        steps=step_table(found),
        tallies=[made for kind in TALLIES if (made := tally(found, kind)).rows],
        matrix=matrix(manifest),
        rule=rule(manifest),
    )


def read_sources(manifest: Mapping[str, Any]) -> list[Source]:
    """The sources of a manifest, in its order."""
    return [read_source(entry) for entry in objects(manifest.get("sources"))]


def read_source(entry: dict[str, Any]) -> Source:
    """One source; what is not a number does not count."""
    steps = []
    for step in objects(entry.get("steps")):
        before, after = as_number(step.get("rows_before")), as_number(step.get("rows_after"))
        if before is not None and after is not None:
            steps.append(Step(str(step.get("step")), before, after))
    reasons = {}
    for kind in TALLIES:
        counts = {str(key): as_number(n) for key, n in mapping(entry.get(kind)).items()}
        reasons[kind] = {key: n for key, n in counts.items() if n is not None}
    return Source(
        name=str(entry.get("source") or entry.get("path") or "unnamed"),
        path=str(entry.get("path") or ""),
        licence=str(entry.get("license") or ""),
        counts={key: as_number(entry.get(key)) for key in SUMMED},
        reasons=reasons,
        steps=steps,
        lengths=mapping(entry.get("lengths")),
    )


def objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def summed(sources: Iterable[Source], key: str) -> float:
    return sum(source.counts[key] or 0 for source in sources)


def percent(share: float | None) -> str:
    """A share between 0 and 1; one that is not zero does not look like it."""
    if share is None:
        return "—"
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share * 100:.1f}%"


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def source_table(sources: Sequence[Source]) -> dict[str, Any]:
    """Rows, tokens and shares per source; columns that no source fills are left out."""
    sums = {key: summed(sources, key) for key in SUMMED}
    weigh = next((key for key in SHARES if sums[key]), "rows_taken")
    extra = []
    if weigh == "trained_tokens":
        extra += ["Share of tokens", "Trained part"]
    for key, title in (("truncated", "Truncated"), ("without_eos", "Without EOS")):
        if sums[key] or (key == "truncated" and any(s.counts[key] == 0 for s in sources)):
            extra.append(title)
    extra += ["Held out"] if sums["rows_held_out"] else []
    whole = Source.of_all(sources)
    rows = []
    for source in sources:
        cells = extra_cells(source, sums["tokens"])
        share = 100 * (source.counts[weigh] or 0) / (sums[weigh] or 1)
        where = [source.path if source.path != source.name else "", source.licence]
        rows.append(
            {
                "source": source.name,
                "path": ", ".join(filter(None, where)),
                "dropped": [(r, as_count(n)) for r, n in source.reasons["dropped"].items()],
                "lost": as_count(source.dropped) if source.steps else "",
                "share": round(share, 1),
                "extra": [cells[title] for title in extra],
                **{key: as_count(source.counts[key]) for key in SUMMED},
            }
        )
    if len(rows) > 1:
        totals: dict[str, Any] = {k: as_count(n) if n else "—" for k, n in sums.items()}
        cells = extra_cells(whole, sums["tokens"])
        lost = as_count(sum(s.dropped for s in sources)) if any(s.steps for s in sources) else ""
        totals |= {"source": "all", "path": "", "dropped": [], "lost": lost, "share": None}
        rows.append(totals | {"extra": [cells[title] for title in extra]})
    return {"share": SHARES[weigh], "extra": extra, "rows": rows}


def extra_cells(source: Source, tokens: float) -> dict[str, str]:
    """The cells of the columns that not every table has."""
    counts = source.counts
    return {
        "Share of tokens": percent(ratio(counts["tokens"], tokens)),
        "Trained part": percent(ratio(counts["trained_tokens"], counts["tokens"])),
        "Truncated": with_share(counts["truncated"], source.rows),
        "Without EOS": with_share(counts["without_eos"], source.rows),
        "Held out": as_count(counts["rows_held_out"]),
    }


def with_share(part: float | None, whole: float | None) -> str:
    """`12 (0.3%)`; a zero stands alone."""
    return f"{as_count(part)} ({percent(part / whole)})" if part and whole else as_count(part)


def step_table(sources: Sequence[Source]) -> tuple[list[str], list[tuple[str, list[Step | None]]]]:
    """The steps of all sources in one order, and a line per source; `None`: it lacks that step."""
    order: list[str] = []
    for source in sources:
        place = 0
        for step in source.steps:
            if step.name not in order:
                order.insert(place, step.name)
            place = order.index(step.name) + 1
    lines = []
    for source in sources:
        by_name = {step.name: step for step in source.steps}
        if by_name:
            lines.append((source.name, [by_name.get(name) for name in order]))
    return order, lines


def tally(sources: Sequence[Source], kind: str) -> Tally:
    """Reasons over all sources."""
    found: dict[str, list[tuple[str, float]]] = {}
    for source in sources:
        for reason, number in source.reasons[kind].items():
            if number:
                found.setdefault(reason, []).append((source.name, number))
    rows = [(reason, sum(n for _, n in by), by) for reason, by in found.items()]
    rows.sort(key=lambda row: -row[1])
    return Tally(TALLIES[kind], rows[:MOST_REASONS], max(0, len(rows) - MOST_REASONS))


def matrix(manifest: Mapping[str, Any]) -> Matrix:
    """The rates of `contamination` as the table of Tülu 3 (arXiv:2411.15124, Table 37)."""
    lines: list[tuple[str, dict[str, Overlap]]] = []
    for entry in objects(manifest.get("contamination")):
        keys = ("eval_rows", "eval_share", "train_rows", "train_share")
        values = {key: as_number(entry.get(key)) or 0.0 for key in keys}
        source, eval_set = str(entry.get("source")), str(entry.get("eval_set"))
        bad = entry.get("contaminated") is True
        overlap = Overlap(source, eval_set, contaminated=bad, **values)
        # two data sets may share a name: the second one begins where a pair comes again
        if not lines or lines[-1][0] != source or eval_set in lines[-1][1]:
            lines.append((source, {}))
        lines[-1][1][eval_set] = overlap
    sets = list(dict.fromkeys(name for _, cells in lines for name in cells))
    return Matrix(sets, [(name, [cells.get(s) for s in sets]) for name, cells in lines])


def rule(manifest: Mapping[str, Any]) -> str:
    """How rows and evaluation prompts were compared, where the manifest says it, and its limit."""
    found = mapping(manifest.get("decontaminate"))
    mode = str(found.get("mode", "unknown"))
    words = [f"Mode {mode}"]
    if mode == "ngram":
        words.append(f"n-grams of {as_count(found.get('n'))} words")
    if mode in ("ngram", "embedding"):
        words.append(f"threshold {percent(as_number(found.get('threshold')))}")
    words.append(f"action {found.get('action')}")
    limit = "N-grams and exact comparison find copies, not paraphrases."
    told = [f"{', '.join(words)}."] if found else []
    return " ".join([*told, *([limit] if mode != "embedding" else [])])


def data_notes(stage: str, shown: View) -> Iterable[str]:
    """What a reader must know before the numbers."""
    cleaned = {
        source.name
        for source in shown.sources
        if any(step.name == "decontaminate" and step.after < step.before for step in source.steps)
    }
    for overlap in shown.matrix.overlaps():
        if overlap.contaminated and overlap.source not in cleaned:
            yield f"{stage}: contaminated, and not cleaned: {overlap.words}."
    trains = bool(summed(shown.sources, "trained_tokens"))
    for source in shown.sources:
        share = ratio(source.counts["truncated"], source.rows)
        if share is not None and share > MOST_TRUNCATED:
            yield f"{stage}: {percent(share)} of the rows of {source.name} are truncated."
        if trains and source.counts["trained_tokens"] == 0:
            yield f"{stage}: nothing of {source.name} is trained."


def write_data_report(found: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """One page with the data of every stage: no script, nothing fetched.

    Args:
        found: stage -> its manifest.
        out: the HTML file; folders on the way are made.

    Raises:
        RunError: the file cannot be written.
    """
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error}; choose another place") from error
    stages = [(name, view(mapping(manifest))) for name, manifest in found.items()]
    notes = [note for name, shown in stages for note in data_notes(name, shown)]
    summary = [(name, summary_line(shown.sources)) for name, shown in stages]
    html = render_page("data_page.html.jinja", stages=stages, notes=notes, summary=summary)
    return write_page(html, out)


def summary_line(sources: Sequence[Source]) -> str:
    """`3 sources, 12,051 rows, 543,003 tokens, 46.4% of them trained`."""
    words = [f"{len(sources)} source" + ("" if len(sources) == 1 else "s")]
    words.append(f"{as_count(sum(s.rows or 0 for s in sources))} rows")
    if tokens := summed(sources, "tokens"):
        words.append(f"{as_count(tokens)} tokens")
        if trained := summed(sources, "trained_tokens"):
            words.append(f"{percent(trained / tokens)} of them trained")
    return ", ".join(words)
