"""`posttrain data dedup`: one row of every group of duplicates in a file."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from posttrain.errors import DataError
from posttrain.filters.dedup import MODES, dedup_file
from posttrain.filters.exact_duplicates import PROVENANCE
from posttrain.formats import Row
from posttrain.pipeline.folder import write_json
from posttrain.sources.chunks import parse_line
from posttrain.sources.files import lines


def dedup_rows(
    file: Path, out: Path, *, mode: str, threshold: float, report: Path | None = None
) -> tuple[int, int]:
    """Copy the rows to keep, byte for byte, to `out`; rows read and rows kept.

    Args:
        mode: `near` or `exact`; threshold: of Jaccard similarity, for `near`.
        report: gets the groups, as 0-based row numbers of which the first was kept.

    Raises:
        DataError: a file that cannot be read, or an option that makes no sense.
    """
    if mode not in MODES:
        raise DataError(f"--mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not 0 < threshold <= 1:
        raise DataError(f"--threshold must be above 0 and at most 1, got {threshold}")
    if out.resolve() == file.resolve() or out.is_dir():
        raise DataError(f"--out {out} must be a file of its own")
    rows_read = (row for row, _ in rows_of(file))
    if mode == "near":  # whatever the fields are called, what they say is compared
        rows_read = ({"text": "\n".join(texts_in(row))} for row in rows_read)
    keep, groups = dedup_file(rows_read, threshold, mode)
    kept, rows = np.array(keep, np.int64), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    try:
        with writing(aside, out) as sink:
            place = 0
            for rows, (_, line) in enumerate(rows_of(file), 1):
                if place < len(kept) and kept[place] == rows - 1:
                    sink.write(line if line.endswith(b"\n") else line + b"\n")
                    place += 1
        shutil.move(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    if report is not None:
        write_json(report, {"rows": rows, "kept": len(keep), "mode": mode, "groups": groups})
    return rows, len(keep)


def writing(aside: Path, out: Path) -> IO[bytes]:
    """The file that is written, compressed as its final name says."""
    return gzip.open(aside, "wb") if out.suffix == ".gz" else aside.open("wb")  # type: ignore[return-value]


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a row but its provenance, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in PROVENANCE and name != "role":
                yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def rows_of(file: Path) -> Iterator[tuple[Row, bytes]]:
    """Every row with its line."""
    if not file.is_file():
        raise DataError(f"{file} does not exist or is a folder; give a .jsonl or .jsonl.gz file")
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            yield parse_line(f"{file}:{number}", line, "json"), line
