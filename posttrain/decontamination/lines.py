"""Lines of .jsonl and .jsonl.gz files, streamed, with their places."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import decode_json


def open_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """`file:line` and the bytes of each line, its ending included.

    Raises:
        DataError: the file is missing, damaged, or not of this kind.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path} must be a .jsonl or .jsonl.gz file, one object per line")
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path}:{number}", line
    except FileNotFoundError:
        raise DataError(f"{path} does not exist (looked for {path.resolve()})") from None
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read beyond line {number} ({why})") from error


def parse(place: str, line: bytes) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        DataError: it is not JSON, not UTF-8, no object, or has one key twice.
    """
    try:
        row = decode_json(line.decode().removeprefix("\ufeff"))
    except DataError as error:
        raise DataError(f"{place} {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}; mend or remove the line") from None
    if not isinstance(row, dict):
        raise DataError(f"{place} must be an object, it is of type {type(row).__name__}")
    return row
