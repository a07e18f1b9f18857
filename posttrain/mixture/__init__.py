"""Sources + filters -> one shuffled mixture, and a manifest that accounts for every row.

Rows stay on disk, in one store per source; a mixture is an order over them. So a mixture of any
size takes some 25 bytes of memory a row, and building it again costs only what has changed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.mixture.account import account, contamination
from posttrain.mixture.draw import counts_of, draw, hold_out, shuffle
from posttrain.mixture.guard import Guard
from posttrain.mixture.judge import judge
from posttrain.mixture.part import Part, Plan
from posttrain.mixture.read import read_source
from posttrain.mixture.rows import Rows
from posttrain.recipe import Source
from posttrain.sources import Opened, open_source, source_name
from posttrain.store import Store

__all__ = ["Guard", "Mixture", "Part", "Rows", "build_mixture"]

CountTokens = Callable[[Row], int]
TokenLengths = Callable[[Store, str], np.ndarray]


@dataclass
class Mixture:
    """Rows of a stage in their shuffled order, and where they came from.

    Attributes:
        rows: normalised rows (see formats/), each with its `source`; read from disk when asked.
        manifest: per source what was read, dropped by which reason, and taken; hash of the order.
        held_out: rows that `eval_fraction` set aside, in the order of the sources.
        parts: the sources on their way into the mixture.
    """

    rows: Rows
    manifest: dict[str, Any] = field(default_factory=dict)
    held_out: Rows = field(default_factory=Rows)
    parts: list[Part] = field(default_factory=list)


def build_mixture(
    datasets: Sequence[Source | Mapping[str, Any]],
    kind: str = "conversation",
    *,
    seed: int = 42,
    filters: Sequence[Any] = (),
    bad_rows: str = "error",
    mixing: Mapping[str, Any] | None = None,
    eval_fraction: float | None = None,
    token_budget: int | None = None,
    count_tokens: CountTokens | None = None,
    token_lengths: TokenLengths | None = None,
    remap_verifier: Mapping[str, str] | None = None,
    verifier: str | None = None,
    guard: Guard | None = None,
    opener: Callable[[Source, int], Opened] = open_source,
    workers: int | None = None,
    progress: Callable[[str, int], None] = lambda name, rows: None,
) -> Mixture:
    """Read, check, filter, draw and shuffle.

    Args:
        datasets: entries of `datasets:`.
        kind: `text`, `conversation`, `preference` or `problem`.
        seed: decides what is drawn and the order; the same everywhere, on any number of workers.
        filters: filters applied to every row, by name.
        bad_rows: `error` stops at rows that cannot be read, `drop` counts them.
        mixing: rows per source by size, instead of amounts at the sources (see draw.py).
        eval_fraction: share of every source that is held out before anything is drawn.
        token_budget: tokens that sources with a `weight` share, counted by `count_tokens` row by
            row, or by `token_lengths` (store, source) -> `[rows of the store]` at once.
        remap_verifier: verifier names in the data -> names here; `verifier`: instead of theirs.
        guard: evaluation prompts that the rows are checked against.
        opener: how a source is opened; `--smoke` puts stand-ins here.
        workers: processes that read; default: all cores.
        progress: told source and number of rows as they are read.

    Raises:
        DataError: a source or row that cannot be read, or nothing left.
    """
    finder = guard.finder if guard else None
    remap = dict(remap_verifier or {})
    plan = Plan(kind, verifier=verifier, remap=remap, filters=tuple(filters), finder=finder)
    parts = []
    for entry in datasets:
        source = entry if isinstance(entry, Source) else Source(**entry)
        told = partial(progress, source_name(source))
        parts.append(read_part(source, opener(source, seed), plan, bad_rows, workers, told))
    judge(parts, len(plan.filters))
    rates = contamination(parts, guard)
    for part in parts:
        keep(part)
    take(parts, seed, mixing, eval_fraction, token_budget, count_tokens, token_lengths)
    rows, held_out = in_order(parts, seed), Rows.of([(p.store, p.name, p.held_out) for p in parts])
    manifest = {"seed": seed, "rows": len(rows), "sources": [account(part) for part in parts]}
    manifest |= {"mixing": dict(mixing)} if mixing else {}
    manifest |= {"contamination": rates, "decontaminate": guard.record()} if guard else {}
    if eval_fraction:
        manifest["held_out"] = {"fraction": eval_fraction, "rows": len(held_out)}
    return Mixture(rows, manifest | {"order_sha256": order_hash(rows, manifest)}, held_out, parts)


def read_part(
    source: Source,
    opened: Opened,
    plan: Plan,
    bad_rows: str,
    workers: int | None,
    told: Callable[[int], None],
) -> Part:
    """Read one source as the stage's plan says."""
    mine = plan.of(source)
    return Part(source, opened, mine, read_source(source, opened, mine, bad_rows, workers, told))


def keep(part: Part) -> None:
    """The rows of a source that may be drawn.

    Raises:
        DataError: there is none.
    """
    kept = np.ones(part.store.rows, bool)
    kept[list(part.dropped)] = False
    part.kept = np.flatnonzero(kept).astype(np.int32)
    if not len(part.kept):
        dropped = account(part)["dropped"]
        top = sorted(dropped.items(), key=lambda item: -item[1])[:3]
        why = "; ".join(f"{n} rows: {reason}" for reason, n in top) or "it has no rows"
        raise DataError(
            f"source {part.source.path!r} has no usable row ({why}); mend it or remove the source"
        )


def take(
    parts: Sequence[Part],
    seed: int,
    mixing: Mapping[str, Any] | None,
    eval_fraction: float | None,
    token_budget: int | None,
    count_tokens: CountTokens | None,
    token_lengths: TokenLengths | None,
) -> None:
    """Decide which rows of every source are used."""
    marks = [
        f"{seed}/{i}/{p.source.path}/{p.source.name}/{p.source.split}" for i, p in enumerate(parts)
    ]
    for part, mark in zip(parts, marks, strict=True):
        rng = random.Random(f"{mark}/held-out")
        try:
            part.kept, part.held_out = hold_out(part.kept, eval_fraction, rng)
        except DataError as error:
            raise DataError(f"source {part.source.path!r}: {error}") from error
    total = sum(p.source.weight or 0 for p in parts)
    counts = counts_of(mixing, [len(p.kept) for p in parts])
    for part, mark, count in zip(parts, marks, counts, strict=True):
        weight = part.source.weight
        budget = token_budget * weight / total if token_budget and weight else None
        lengths = None
        if token_lengths or count_tokens:
            lengths = partial(lengths_of, part, count_tokens, token_lengths)
        part.taken = draw(part.kept, part.source, random.Random(mark), count, budget, lengths)
        part.kept = part.kept[:0]  # it is as large as the source


def lengths_of(
    part: Part,
    count_tokens: CountTokens | None,
    token_lengths: TokenLengths | None,
) -> np.ndarray:
    """Tokens of every row that may be drawn."""
    if token_lengths is not None:
        return token_lengths(part.store, part.name)[part.kept]
    assert count_tokens is not None
    rows = Rows.of([(part.store, part.name, part.kept)])
    return np.fromiter((count_tokens(row) for row in rows), np.int64, len(rows))


def in_order(parts: Sequence[Part], seed: int) -> Rows:
    """The rows that were taken, shuffled into each other."""
    rows = Rows.of([(p.store, p.name, p.taken) for p in parts])
    return rows.reordered(shuffle(len(rows), random.Random(f"{seed}/shuffle")))


def order_hash(rows: Rows, manifest: Mapping[str, Any]) -> str:
    """Hash of all rows in their order: of each source's rows, and of which comes when."""
    mark = hashlib.sha256()
    for entry in manifest["sources"]:
        mark.update(f"{entry['source']} {entry['rows_sha256']}\n".encode())
    mark.update(rows.which.data)
    mark.update(rows.row.data)
    return mark.hexdigest()
