"""Raw rows in chunks: what is read in one place and parsed, on any core, in another.

A chunk never spans two files and is bounded in rows and bytes, so a source larger than memory is
read as easily as a small one, and every row knows its place: `file.jsonl:17`, or row 17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, decode_json

CHUNK_ROWS = 2000
CHUNK_BYTES = 8 << 20


class BadRow(DataError):
    """What stands in the place of a row that cannot be read.

    Args:
        place: how a message names the row, as `rows.jsonl:17`.
        why: the rest of the sentence; the same for all such rows up to `, got `, `:`, `(` or `;`.
    """

    def __init__(self, place: str, why: str) -> None:
        super().__init__(place, why)
        self.why = why

    def __str__(self) -> str:
        return " ".join(self.args)


@dataclass(frozen=True)
class Chunk:
    """Some raw rows, one after another.

    Attributes:
        file: where they stand, for messages; empty for rows that stand in no file.
        first: number of the first, counted from 1.
        items: lines (bytes), or rows and errors in the place of rows.
        kind: `json` and `text` are lines; `rows` are rows already.
    """

    file: str
    first: int
    items: list[Any]
    kind: str = "rows"

    def place(self, number: int) -> str:
        """How a message names an item."""
        if self.kind == "rows":
            return f"{self.file}: row {number}" if self.file else f"row {number}"
        return f"{self.file}:{number}"

    def parse(self) -> Iterator[tuple[int, Row | DataError]]:
        """Every row with its number, or what is wrong with it; blank lines are no rows."""
        for number, item in enumerate(self.items, self.first):
            if self.kind == "rows":
                yield number, item
            elif item.strip():
                try:
                    yield number, parse_line(self.place(number), item, self.kind)
                except DataError as error:
                    yield number, error


def parse_line(place: str, line: bytes, kind: str) -> Row:
    """One line of a .jsonl or .txt file.

    Raises:
        BadRow: it is not UTF-8, not JSON, no object, or an object of it has one key twice.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(place, f"is not UTF-8 text ({error}); convert it") from error
    if kind == "text":
        return {"text": text.rstrip("\r\n")}
    try:
        # a mark may stand in the middle where files that begin with one were put together
        row = decode_json(text.removeprefix("\ufeff"))
    except DataError as error:
        raise BadRow(place, str(error)) from None
    except RecursionError as error:
        raise BadRow(place, "is nested too deeply; flatten or remove the line") from error
    except ValueError as error:
        raise BadRow(place, f"is not JSON: {error}; mend or remove the line") from error
    if not isinstance(row, dict):
        raise BadRow(place, f"must be an object, it is of type {type(row).__name__}")
    return row


@dataclass(frozen=True)
class Chunks:
    """Rows of a source that is read anew each time it is walked through."""

    make: Callable[[], Iterator[Chunk]]

    def __iter__(self) -> Iterator[Row]:
        for chunk in self.make():
            for _, row in chunk.parse():
                if isinstance(row, DataError):
                    raise row
                yield row


def chunked(items: Iterable[Any], file: str = "", kind: str = "rows") -> Iterator[Chunk]:
    """Items in chunks; lines are bounded in bytes too."""
    first, batch, size = 1, [], 0
    for item in items:
        batch.append(item)
        size += len(item) if kind != "rows" else 0
        if len(batch) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield Chunk(file, first, batch, kind)
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield Chunk(file, first, batch, kind)
