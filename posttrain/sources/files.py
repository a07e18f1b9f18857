"""Rows of one file: .jsonl, .json, .csv, .txt (all of them also .gz), .parquet, .arrow.

Everything is streamed but .json, which is one value. One row of a .jsonl file:

    {"question": "Natalia sold clips to 48 of her friends ...", "answer": "... #### 72"}
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from posttrain.errors import DataError, first_line
from posttrain.formats import Row, decode_json
from posttrain.sources.chunks import BadRow, Chunk, chunked

BOM = b"\xef\xbb\xbf"
LONGEST_CELL = 1 << 30  # the csv module's own limit, 128 KiB, is shorter than many an answer


def digest(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def exists(path: str) -> bool:
    """Whether there is a file or folder of this path; `~` is the home folder."""
    return Path(path).expanduser().exists()


def ending(path: str | Path) -> str | None:
    """The known ending of a path, without .gz."""
    name = str(path)
    plain = name.removesuffix(".gz")
    found = next((e for e in READERS if plain.endswith(e)), None)
    return None if found in (".parquet", ".arrow") and name != plain else found


def is_local(path: str) -> bool:
    """Whether a path means something on this disk rather than a hub id."""
    return exists(path) or path.startswith((".", "/", "~")) or ending(path) is not None


def read_file(path: Path) -> Iterator[Chunk]:
    """The rows of a file, in chunks.

    Raises:
        DataError: an unknown ending, or a file that is damaged.
    """
    found = ending(path)
    if found is None:
        raise DataError(f"{path}: unknown ending; known are {', '.join(known_endings())}")
    return READERS[found](path)


def known_endings() -> list[str]:
    """Every ending that can be read."""
    gz = [f"{e}.gz" for e in READERS if e not in (".parquet", ".arrow")]
    return [*READERS, *gz]


def open_bytes(path: Path) -> BinaryIO:
    """A file for reading, unzipped on the way."""
    try:
        return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file. A line ends at \\n only: JSON may hold other separators."""
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(file):
                yield line.removeprefix(BOM) if number == 0 else line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} is damaged or no gzip file ({error}); copy it again"
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error


def read_jsonl(path: Path) -> Iterator[Chunk]:
    """A row per line."""
    return chunked(lines(path), str(path), "json")


def read_text(path: Path) -> Iterator[Chunk]:
    """A `text` row per line that is not blank."""
    return chunked(lines(path), str(path), "text")


def read_json(path: Path) -> Iterator[Chunk]:
    """A list of rows, or one object: a task file, which its adapter takes apart."""
    data = b"".join(lines(path))
    if not data.strip():
        raise DataError(f"{path} cannot be read: it is empty")
    try:
        rows = decode_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); convert it") from error
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except (ValueError, RecursionError) as error:
        extra = "Extra data" in str(error)
        hint = "; one object per line is .jsonl: rename the file" if extra else ""
        raise DataError(f"{path} is not JSON: {error}{hint}") from error
    if isinstance(rows, dict):
        rows = [{**rows, "__file__": path.name}]
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, it holds a {type(rows).__name__}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            kind = type(row).__name__
            rows[i] = BadRow(f"{path}: row {i + 1}", f"must be an object, it is of type {kind}")
    return chunked(rows, str(path))


def read_csv(path: Path) -> Iterator[Chunk]:
    """A row per record, under the names of the first; every value is text."""
    csv.field_size_limit(LONGEST_CELL)

    def rows() -> Iterator[Row | DataError]:
        with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            table = csv.DictReader(text, strict=True)
            try:
                if not table.fieldnames:
                    raise DataError(f"{path} cannot be read: it is empty")
                distinct(path, table.fieldnames)
                for number, row in enumerate(table, 1):
                    if None not in row and None not in row.values():
                        yield dict(row)
                        continue
                    yield BadRow(
                        f"{path}: row {number} (line {table.line_num})",
                        f"has more or fewer values than the {len(table.fieldnames)} names of the"
                        " first line; mend the line",
                    )
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not UTF-8 text ({error}); convert it") from error
            except (csv.Error, EOFError, zlib.error, OSError) as error:
                raise DataError(f"{path}:{table.line_num} cannot be read: {error}") from error

    return chunked(rows(), str(path))


def read_parquet(path: Path) -> Iterator[Chunk]:
    """The rows of a .parquet file, batch by batch."""
    from pyarrow import parquet

    def rows() -> Iterator[Row]:
        with parquet.ParquetFile(path) as file:
            distinct(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()

    return chunked(guarded(path, rows), str(path))


def read_arrow(path: Path) -> Iterator[Chunk]:
    """The rows of an .arrow file, as a stream (what `datasets` writes) or a file."""
    import pyarrow as pa

    def rows() -> Iterator[Row]:
        with pa.OSFile(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)
                schema, batches = reader.schema, iter(reader)
            except pa.ArrowInvalid:
                file.seek(0)
                whole = pa.ipc.open_file(file)
                schema = whole.schema
                batches = (whole.get_batch(i) for i in range(whole.num_record_batches))
            distinct(path, schema.names)
            for batch in batches:
                yield from batch.to_pylist()

    return chunked(guarded(path, rows), str(path))


def distinct(path: Path, names: Sequence[str]) -> None:
    """Refuse a table in which two columns have one name; empty names mean nothing to anybody.

    Raises:
        DataError: there are two such columns.
    """
    for name, times in Counter(names).items():
        if name and times > 1:
            raise DataError(f"{path} has {times} columns named {name!r}; rename or remove one")


def guarded(path: Path, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Rows of a library's reader; whatever it raises on a damaged file is one readable error."""
    try:
        yield from rows()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error


READERS: dict[str, Callable[[Path], Iterator[Chunk]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".txt": read_text,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}


def rename(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """Apply `columns:` (our field -> their column).

    Raises:
        DataError: a column that the row does not have.
    """
    row = dict(raw)
    for ours, theirs in columns.items():
        if theirs not in raw:
            known = ", ".join(sorted(map(str, raw)))
            raise DataError(f"columns: {ours}: {theirs!r} is not a column; there are {known}")
        row[ours] = raw[theirs]
    return row
