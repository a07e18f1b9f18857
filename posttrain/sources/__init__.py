"""Public data set, local file or generator -> raw rows. One file per kind of place."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from posttrain.errors import DataError, nearest
from posttrain.formats import Row
from posttrain.recipe import Source
from posttrain.sources import tiny
from posttrain.sources.chunks import BadRow, Chunk, Chunks, chunked
from posttrain.sources.files import digest
from posttrain.sources.places import Opened, open_place

__all__ = [
    "GENERATED",
    "PREFIX",
    "BadRow",
    "Chunk",
    "Opened",
    "open_source",
    "source_name",
    "stand_in",
]

PREFIX = "generated:"

GENERATED: dict[str, Callable[[int], Iterator[Row]]] = {
    "tiny_conversations": tiny.conversations,
    "tiny_pairs": tiny.preferences,
    "tiny_problems": tiny.problems,
    "tiny_text": tiny.text,
}

STAND_INS = {
    "conversation": "tiny_conversations",
    "preference": "tiny_pairs",
    "problem": "tiny_problems",
    "text": "tiny_text",
}


def source_name(source: Source) -> str:
    """Name of a source in metrics: its own, or the last part of its path without endings."""
    if source.source:
        return source.source
    tail = source.path.removeprefix(PREFIX).rstrip("/").rsplit("/", 1)[-1]
    return tail.split(".")[0] or tail


def open_source(source: Source, seed: int) -> Opened:
    """Open a source.

    Raises:
        DataError: it does not exist, cannot be read, or is a generator without `num_samples`.
    """
    if not source.path.startswith(PREFIX):
        return open_place(source)
    name = source.path.removeprefix(PREFIX)
    if name not in GENERATED:
        raise DataError(f"unknown generator {name!r}{nearest(name, GENERATED)}")
    if source.num_samples is None:
        raise DataError(f"{source.path} never ends: say how many rows with `num_samples`")
    seed, number = source.seed if source.seed is not None else seed, source.num_samples
    code = hashlib.sha256(Path(tiny.__file__).read_bytes()).hexdigest()  # it decides the rows too
    sha256 = digest(f"{name} {seed} {number} {code}".encode())
    rows = Chunks(lambda: chunked(itertools.islice(GENERATED[name](seed), number)))
    return Opened(rows, None, sha256, pin=sha256)


def stand_in(kind: str, num_rows: int, seed: int) -> list[Row]:
    """Generated rows in the place of a source that is not on this machine (`--smoke`)."""
    return list(itertools.islice(GENERATED[STAND_INS[kind]](seed), num_rows))
