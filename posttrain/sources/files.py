"""Rows from the hub, from a folder or from a file.

Files: .jsonl, .jsonl.gz, .json (a list), .txt (a row per line) are read here; .csv, .parquet and
.arrow through `datasets`, as are hub ids. One row of a .jsonl file:

    {"question": "Natalia sold clips to 48 of her friends ...", "answer": "... #### 72"}
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from posttrain.errors import DataError, first_line
from posttrain.formats import Row
from posttrain.recipe import Source

LOADERS = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
READ_HERE = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz")


def digest(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def exists(path: str) -> bool:
    """Whether there is a file or folder of this path; `~` is the home folder."""
    return Path(path).expanduser().exists()


def is_local(path: str) -> bool:
    """Whether a path means something on this disk rather than a hub id."""
    return exists(path) or path.startswith((".", "/", "~")) or path.endswith((*READ_HERE, *LOADERS))


def read(source: Source) -> tuple[Any, str | None, str | None]:
    """Rows, revision and content hash of a source that is no generator."""
    path = Path(source.path).expanduser()
    if not is_local(source.path):
        return from_hub(source)
    if not path.exists():
        raise DataError(f"{source.path} does not exist (looked for {path.resolve()})")
    if path.is_file() and path.name.endswith(READ_HERE):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        return list(parse(path, data)), None, digest(data)
    return from_disk(source, path)


def parse(path: Path, data: bytes) -> Iterator[Row]:
    """Rows of a .jsonl, .json or .txt file, gzipped or not."""
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or no gzip file ({error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); convert it") from error
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        yield from parse_list(path, text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        yield {"text": line} if name.endswith(".txt") else parse_object(f"{path}:{number}", line)


def parse_list(path: Path, text: str) -> list[Row]:
    """The rows of a .json file: a list of objects."""
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        hint = (
            "; one object per line is .jsonl: rename the file" if error.msg == "Extra data" else ""
        )
        raise DataError(f"{path} is not JSON: {error}{hint}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, it holds a {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{path}: row {number} must be an object, it is of type {kind}")
    return rows


def parse_object(place: str, line: str) -> Row:
    """One line of a .jsonl file."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is not JSON: {error}; mend or remove the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} must be an object, it is of type {type(row).__name__}")
    return row


def from_disk(source: Source, path: Path) -> tuple[Any, None, str | None]:
    """A .csv/.parquet/.arrow file, a folder of them, or one written by `Dataset.save_to_disk`."""
    import datasets

    try:
        if path.is_file():
            kind = LOADERS.get(path.suffix)
            if kind is None:
                raise DataError(
                    f"{path}: unknown ending; known are {', '.join((*READ_HERE, *LOADERS))}"
                )
            rows = datasets.load_dataset(kind, data_files=str(path), split="train")
            return rows, None, digest(path.read_bytes())
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return split_of(datasets.load_from_disk(str(path)), source), None, None
        rows = datasets.load_dataset(
            str(path), source.name, split=source.split, data_files=files_of(source)
        )
        return rows, None, None
    except DataError:
        raise
    except Exception as error:  # whatever a format's reader raises on a damaged file
        raise DataError(f"{source.path} cannot be read: {first_line(error)}") from error


def split_of(rows: Any, source: Source) -> Any:
    """The split that a source names, of what `save_to_disk` wrote."""
    if not hasattr(rows, "keys"):
        return rows
    if source.split not in rows:
        known = ", ".join(rows)
        raise DataError(
            f"{source.path} has no split {source.split!r}; set `split:` to one of {known}"
        )
    return rows[source.split]


def from_hub(source: Source) -> tuple[Any, str | None, None]:
    """A hub data set at its revision; the commit that was read is returned."""
    import datasets

    try:
        rows = datasets.load_dataset(
            source.path,
            source.name,
            split=source.split,
            revision=source.revision,
            data_files=files_of(source),
        )
    except Exception as error:  # no network, no such data set, gated: all the user's to put right
        raise DataError(
            f"{source.path} is no file here and could not be read from the hub: {first_line(error)}"
        ) from error
    return rows, source.revision or commit(rows), None


def files_of(source: Source) -> Any:
    """`data_files` as `datasets` takes it."""
    return list(source.data_files) if isinstance(source.data_files, tuple) else source.data_files


def commit(rows: Any) -> str | None:
    """The hub commit in the download record of a data set."""
    for url in getattr(rows.info, "download_checksums", None) or {}:
        if "@" in url:
            return str(url).split("@", 1)[1].split("/", 1)[0]
    return None


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
