"""Scores responses that stand in a file, one verdict per row."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from posttrain.errors import DataError, VerifierError
from posttrain.formats import decode_json
from posttrain.verifiers import verify

# What a verifier is not handed as a column: it has these as arguments.
TAKEN = frozenset({"response", "completion", "ground_truth", "verifier", "name", "self"})


def score_file(
    path: str | Path,
    out: str | Path,
    *,
    verifier: str | None = None,
    show_progress: bool = False,
) -> tuple[int, float]:
    """Write every row of `path` to `out` with its `score` and `reason`; return rows and mean score.

    A row holds `response`, `ground_truth` and `verifier` (open-instruct's `dataset` is read as the
    verifier too); `verifier` overrides the rows' own. `.gz` files are read and written compressed.
    Rows are streamed, and `out` appears only when all of them are scored. Progress is told on
    stderr.

    Raises:
        DataError: a row that cannot be read or scored, by its line.
    """
    path, out = Path(path), Path(out)
    if out.is_dir():
        raise DataError(f"{out} is a folder; --out names the file to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: it decides whether the file is compressed.
    part = out.with_name(f"part-{out.name}")
    console = Console(stderr=True)
    columns = ("scored {task.completed} rows", TimeElapsedColumn())
    total, rows = 0.0, 0
    try:
        with Progress(*columns, console=console, disable=not show_progress) as progress:
            bar = progress.add_task("score", total=None)
            with _open(part, "wt") as sink:
                for row in _scored(path, verifier):
                    sink.write(json.dumps(row, ensure_ascii=False) + "\n")
                    total, rows = total + row["score"], rows + 1
                    progress.advance(bar)
        if not rows:
            raise DataError(f"{path} holds no rows, so there is nothing to score")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return rows, total / rows


def _scored(path: Path, verifier: str | None) -> Iterator[dict[str, Any]]:
    for line, row in _rows(path):
        try:
            yield _score(row, verifier)
        except (DataError, VerifierError) as error:
            raise DataError(f"{path}, line {line}: {error}") from error


def _score(row: dict[str, Any], verifier: str | None) -> dict[str, Any]:
    name = verifier or row.get("verifier") or row.get("dataset")
    if not isinstance(name, str):
        raise DataError(f"no `verifier`; the row has {sorted(row)}. Add one, or give --verifier")
    if not isinstance(row.get("response"), str):
        raise DataError(f"`response` must be text, got {row.get('response')!r}")
    if row.get("ground_truth") is None:
        raise DataError(f"no `ground_truth`; the row has {sorted(row)}")
    rest = {field: value for field, value in row.items() if field not in TAKEN}
    verdict = verify(name, row["response"], row["ground_truth"], **rest)
    fault = {"fault": verdict.fault} if verdict.fault else {}
    return row | {"score": verdict.score, "reason": verdict.reason} | fault


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a .jsonl or .jsonl.gz file, each with its 1-based line, blank lines skipped."""
    try:
        with _open(path, "rt") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parse(line, f"{path}, line {number}")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; give a .jsonl or .jsonl.gz file") from error
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = decode_json(line)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is a JSON object, got {line.strip()[:80]}")
    return row


def _open(path: Path, mode: str) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return cast(TextIO, opener(path, mode, encoding="utf-8"))
