"""How many tokens rows have that no trainer will see: dropped ones, and those a draw left out.

Only their number is kept, so counting a source costs time once and hardly any disk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posttrain.mixture.read import code_of
from posttrain.parallel import ordered
from posttrain.store import Store, Writer, cached, key_of
from posttrain.tokens.stores import ROWS, Job, fixed

ENDLESS = 2**31 - 1  # longer than any row
NO_ROWS = ("read", "format")  # what these steps drop never became a row


@dataclass(frozen=True)
class Counted:
    """What a worker needs: the rows' store and tokenizer, and the column the rows stand in."""

    job: Job
    column: str


def row_sizes(
    job: Job, rows: np.ndarray, workers: int | None, progress: Callable[[int], None]
) -> np.ndarray:
    """`[len(rows)]` tokens of rows of a source before any is cut; 0 for one that has no tokens."""
    return counted(Counted(job, "row"), rows, workers, progress).column("sizes")


def dropped_sizes(job: Job, workers: int | None, progress: Callable[[int], None]) -> Counter[str]:
    """Tokens that each step of reading dropped; what never became a row has none."""
    number = sum(n for note in job.store.chunks for *_, n in note["dropped"])
    store = counted(Counted(job, "dropped"), np.arange(number), workers, progress)
    total: Counter[str] = Counter()
    for note in store.chunks:
        total.update(note["tokens"])
    return total


def counted(
    what: Counted, rows: np.ndarray, workers: int | None, progress: Callable[[int], None]
) -> Store:
    """A store of the sizes of rows, from the cache where they were counted before."""
    job = what.job
    endless = replace(
        job.tokenizer, max_length=ENDLESS, truncation="truncate", max_prompt_length=None
    )
    what = replace(what, job=replace(job, tokenizer=endless))

    def build(writer: Writer) -> None:
        starts = range(len(writer.chunks) * ROWS, len(rows), ROWS)
        for made, note in ordered(make_count, what, (rows[s : s + ROWS] for s in starts), workers):
            writer.append(made, note)
            progress(note["read"])

    key = None
    if job.store.key is not None:
        key = key_of(
            sizes=job.store.key,
            column=what.column,
            which=key_of(rows=rows.tolist()),
            kind=job.kind,
            tokenizer=endless.fingerprint(),
            code=code_of("tokens", "store"),
        )
    return cached(key, {"sizes": "int32"}, build)


def make_count(what: Counted) -> Callable[[np.ndarray], tuple[dict[str, Any], dict[str, Any]]]:
    """The worker's function: rows -> their sizes, and the tokens per step that dropped them."""
    job = what.job

    def count(which: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        rows: list[Any] = [json.loads(job.store.read(what.column, int(i))) for i in which]
        steps = [""] * len(rows)
        if what.column == "dropped":
            steps, rows = [entry["step"] for entry in rows], [entry["row"] for entry in rows]
        there = [i for i, step in enumerate(steps) if step not in NO_ROWS]
        sizes = np.zeros(len(rows), np.int64)
        if there:
            sizes[there] = job.tokenizer.batch(job.kind, [rows[i] for i in there]).sizes
        tokens: Counter[str] = Counter()
        for step, size in zip(steps, sizes.tolist(), strict=True):
            tokens[step] += size
        return {"sizes": fixed(sizes)}, {"read": len(rows), "tokens": dict(tokens)}

    return count
