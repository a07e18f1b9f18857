"""One source: raw rows -> checked, filtered rows in a store. Runs on all cores, remembers nothing.

What a worker does with a chunk depends on nothing but the chunk, so the store is the same however
many workers there were. Filters that remember earlier rows are split: workers make their marks,
and `judge` reads the marks in the order of the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.decontamination import Decontaminator
from posttrain.errors import DataError, VerifierError
from posttrain.filters import Flag, get_filters
from posttrain.formats import Row, to_row
from posttrain.mixture.part import Plan, sets
from posttrain.mixture.reasons import countable, shorten
from posttrain.parallel import ordered
from posttrain.recipe import Source
from posttrain.sources import Chunk, Opened
from posttrain.sources.adapters import PLACE, STREAM_FORMATS, LeftOut, get_format
from posttrain.sources.chunks import chunked
from posttrain.sources.files import rename
from posttrain.store import Store, Writer, cached, key_of, texts
from posttrain.verifiers import UNVERIFIED, check_problem

SHOWN = 5
ROOMS = ("decontamination", "errors", "filters", "formats", "mixture", "sources", "verifiers")


@cache
def code_of(*rooms: str) -> str:
    """Hash of the code of some rooms: what an older version made is not taken for this one's."""
    package, mark = Path(__file__).parents[1], hashlib.sha256()
    for room in rooms:
        whole = package / room
        for file in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole.with_suffix(".py")]:
            mark.update(file.read_bytes())
    return mark.hexdigest()


def read_source(
    source: Source,
    opened: Opened,
    plan: Plan,
    bad_rows: str,
    workers: int | None,
    progress: Callable[[int], None],
) -> Store:
    """The rows of a source that may be used, from the cache where the same was read before.

    Raises:
        DataError: rows that cannot be used, under `bad_rows: error`; or a damaged file.
    """
    chunks, plan, format = adapted(source, opened, plan)
    marks = {f"mark{i}": "uint8" for i, rule in enumerate(get_filters(plan.filters)) if sets(rule)}
    columns = {"row": "uint8", "number": "int64", **marks, "dropped": "uint8"}

    def build(writer: Writer) -> None:
        bad: list[str] = []
        for note in writer.chunks:
            bad += note["bad"]
        refuse(source, bad, bad_rows, whole=False)
        skip = len(writer.chunks)
        rest = (chunk for i, chunk in enumerate(chunks) if i >= skip)
        # a model that embeds is not sent to other processes
        alone = plan.finder is not None and plan.finder.mode == "embedding"
        for made, note in ordered(make_reader, plan, rest, 1 if alone else workers):
            writer.append(made, note)
            progress(note["read"])
            bad += note["bad"]
            refuse(source, bad, bad_rows, whole=False)

    store = cached(store_key(source, opened, plan, format), columns, build)
    refuse(source, [line for note in store.chunks for line in note["bad"]], bad_rows, whole=True)
    return store


def store_key(source: Source, opened: Opened, plan: Plan, format: str) -> str | None:
    """Everything that decides the rows and what is said of them; `None`: nothing names the content.

    The content alone is not enough: the same bytes are other rows under another ending, one hub
    commit holds several configurations and splits, and messages name the file.
    """
    if opened.pin is None:
        return None
    place = [source.path, source.name, source.split, source.data_files]
    settings = {**plan.__dict__, "format": format, "finder": looked_for(plan.finder)}
    return key_of(pin=opened.pin, place=place, code=code_of(*ROOMS), **settings)


def looked_for(finder: Decontaminator | None) -> str | None:
    """Everything that decides which rows a decontaminator finds."""
    if finder is None:
        return None
    sets = [[one.name, *one.prompts] for one in finder.eval_sets]
    how = [finder.mode, finder.n, finder.threshold, finder.fields, repr(finder.search)]
    return key_of(sets=sets, how=how if finder.mode == "embedding" else how[:-1])


def adapted(source: Source, opened: Opened, plan: Plan) -> tuple[Iterator[Chunk], Plan, str]:
    """The chunks, the plan with the adapter that their first row asks for, and that adapter's name.

    A format in which several raw rows make one is applied to the chunks here; the plan has no
    adapter then, but its name and options still decide the rows.
    """
    chunks = opened.chunks()
    first = next(chunks, None)
    if first is None:
        return iter(()), plan, ""
    chunks = chunks_before = chain([first], chunks)
    example = next((row for _, row in first.parse() if isinstance(row, dict)), {})
    with contextlib.suppress(DataError):  # such rows are told of, by number, when they are read
        example = rename(example, plan.columns)
    # whoever names the columns has said how the rows are written
    adapter: Any = get_format(plan.format, example, None if plan.columns else source.path)
    name = repr(adapter)
    if type(adapter) in STREAM_FORMATS.values():
        made = f"{source.path} as {type(adapter).__name__} reads it"
        chunks = chunked(streamed(adapter, chunks_before), made)
        return chunks, replace(plan, format=None), name
    return chunks, replace(plan, format=adapter), name


def streamed(adapter: Any, chunks: Iterator[Chunk]) -> Iterator[Row | DataError]:
    """What an adapter makes of all rows, and the rows that could not be read, in order."""
    bad: list[DataError] = []

    def rows() -> Iterator[Row]:
        for chunk in chunks:
            for number, row in chunk.parse():
                if isinstance(row, DataError):
                    bad.append(row)
                else:
                    yield {**row, PLACE: chunk.place(number)}

    for made in adapter(rows()):
        yield from bad
        bad.clear()
        yield made
    yield from bad


def refuse(source: Source, bad: Sequence[str], bad_rows: str, *, whole: bool) -> None:
    """Stop at rows that cannot be used, once enough of them are known."""
    if bad_rows != "error" or not bad or (len(bad) < SHOWN and not whole):
        return
    listing = "\n".join(f"  {line}" for line in bad[:SHOWN])
    raise DataError(
        f"source {source.path!r} has rows that cannot be used:\n{listing}\n"
        "  (rows are counted from 1) mend them, or set `bad_rows: drop` in the stage to leave"
        " them out and have them counted"
    )


def make_reader(plan: Plan) -> Callable[[Chunk], tuple[dict[str, Any], dict[str, Any]]]:
    """The worker's function: chunk -> columns of a store, and what is noted of them."""
    rules = [
        (spec if isinstance(spec, str) else spec["name"], rule)
        for spec, rule in zip(plan.filters, get_filters(plan.filters), strict=True)
    ]

    def read(chunk: Chunk) -> tuple[dict[str, Any], dict[str, Any]]:
        out = Reading(plan, rules, chunk)
        for number, raw in chunk.parse():
            out.take(number, raw)
        return out.columns(), out.note()

    return read


class Reading:
    """What becomes of one chunk."""

    def __init__(self, plan: Plan, rules: Sequence[tuple[str, Any]], chunk: Chunk) -> None:
        self.plan, self.rules, self.chunk = plan, rules, chunk
        self.rows: list[Row] = []
        self.numbers: list[int] = []
        self.read = 0
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.dropped_rows: list[str] = []
        self.flagged: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()
        self.bad: list[str] = []

    def take(self, number: int, raw: Row | DataError) -> None:
        """One raw row, or what was wrong with its line."""
        self.read += 1
        if isinstance(raw, LeftOut):
            self.drop(number, "format", countable(raw), None)
            return
        if isinstance(raw, DataError):
            self.refuse(number, str(raw), countable(raw), None)
            return
        try:
            renamed = rename(raw, self.plan.columns)
            parts = self.plan.format(renamed) if self.plan.format else [renamed]
            rows = [self.row(part) for part in parts]
        except LeftOut as error:
            self.drop(number, "format", countable(error), raw)
            return
        except (DataError, VerifierError) as error:
            self.refuse(number, f"{self.chunk.place(number)}: {error}", countable(error), raw)
            return
        if not rows:
            self.drop(number, "format", "the format makes no row of it", raw)
            return
        self.read += len(rows) - 1
        for row in rows:
            step, reason = self.judge(row)
            if reason:
                self.drop(number, step, reason, row)
            else:
                self.rows.append(row)
                self.numbers.append(number)

    def row(self, raw: Row) -> Row:
        """A raw row in its shape."""
        plan = self.plan
        if plan.kind == "problem" and plan.verifier:
            raw = {**raw, "verifier": plan.verifier}
        if plan.kind == "problem" and plan.verifier == UNVERIFIED:
            raw = {**raw, "dataset": None, "ground_truth": str(raw.get("ground_truth") or "")}
        row = to_row(plan.kind, raw, self.repairs)
        return check_problem(row, plan.remap) if plan.kind == "problem" else row

    def judge(self, row: Row) -> tuple[str, str | None]:
        """The first filter that drops a row, and why."""
        for name, rule in self.rules:
            if sets(rule):
                continue
            why = rule(row)
            if isinstance(why, Flag):
                self.flagged[str(why)] += 1
            elif why:
                return name, why
        return "", None

    def refuse(self, number: int, message: str, reason: str, raw: Row | None) -> None:
        """A row that is none."""
        self.bad.append(shorten(message))
        self.drop(number, "read", reason, raw)

    def drop(self, number: int, step: str, reason: str, row: Row | None) -> None:
        self.dropped[step, reason] += 1
        entry = {"number": number, "file": self.chunk.file, "step": step, "reason": reason}
        self.dropped_rows.append(json.dumps({**entry, "row": row}, default=str))

    def columns(self) -> dict[str, Any]:
        """The store's columns."""
        numbers = np.array(self.numbers, np.int64)
        made = {
            "row": texts(json.dumps(row, ensure_ascii=True) for row in self.rows),
            "number": (numbers, np.ones_like(numbers)),
        }
        for i, (_, rule) in enumerate(self.rules):
            if sets(rule):
                made[f"mark{i}"] = texts(rule.mark(row) or b"" for row in self.rows)
        made["dropped"] = texts(self.dropped_rows)
        self.made = made
        return made

    def note(self) -> dict[str, Any]:
        """What the manifest will say of this chunk."""
        finder = self.plan.finder
        found = finder.matches(self.rows) if finder and self.rows else []
        matches = [
            [i, m.eval_set, m.eval_row, round(m.overlap, 4)]
            for i, ms in enumerate(found)
            for m in ms
        ]
        values, _ = self.made["row"]
        return {
            "read": self.read,
            "bytes": len(values),
            "sha256": hashlib.sha256(values.data).hexdigest(),
            "dropped": [[*key, n] for key, n in self.dropped.items()],
            "flagged": dict(self.flagged),
            "repairs": dict(self.repairs),
            "bad": self.bad[:SHOWN],
            "matches": matches,
        }
