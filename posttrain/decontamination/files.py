"""One training file against evaluation files: a clean copy and a report, in one pass.

Lines stream through in chunks of constant size, searched on all cores; whatever their number, the
result is the same.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from posttrain.decontamination.contamination import Contamination
from posttrain.decontamination.embedding import Embed
from posttrain.decontamination.lines import open_lines, parse
from posttrain.decontamination.match import Decontaminator, Match
from posttrain.decontamination.overlap import mark
from posttrain.decontamination.prompts import Fields, read_eval_file, turns_at
from posttrain.errors import DataError
from posttrain.parallel import ordered

CHUNK = 1000  # rows, or
CHUNK_BYTES = 2**22  # bytes, whatever comes first
MARKED = 100  # matches that the report shows with their text

Chunk = list[tuple[str, bytes]]
Searched = tuple[Chunk, list[list[Match]]]


def decontaminate_file(
    train: Path,
    against: Sequence[Path],
    *,
    out: Path,
    report: Path,
    n: int = 8,
    threshold: float = 0.5,
    mode: str = "ngram",
    fields: Fields = "prompt",
    against_fields: Fields = "prompt",
    dataset_threshold: float = 0.02,
    embed: Embed | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Copy the lines of `train` that match no evaluation prompt to `out`, byte for byte.

    Args:
        train: .jsonl or .jsonl.gz, rows of any shape that `user_turns` reads.
        against: evaluation files of the same kinds.
        out, report: written aside and renamed; `out` is compressed if its name ends with .gz.
        n, threshold, mode, fields, embed: see `Decontaminator`.
        against_fields: the fields that hold the prompt in the evaluation files.
        dataset_threshold: see `Contamination`.
        workers: processes; default: one per core that this process may use.
        progress: called with the number of rows done since the last call.

    Returns:
        The report: counts, `matches`, `marked` and a line per evaluation file.

    Raises:
        DataError: a file that cannot be read or written; with the line where there is one.
    """
    check_paths(train, against, out, report)
    sets = [read_eval_file(path, against_fields) for path in against]
    finder = Decontaminator(sets, mode, n, threshold, fields, embed)
    counts = Contamination(finder.eval_sets, dataset_threshold, Counter({str(train): 0}))
    found = Found(train, finder, counts)
    if embed is not None:
        workers = 1  # a model is not sent to other processes
    with ExitStack() as stack:
        clean = stack.enter_context(aside(out))
        written = stack.enter_context(aside(report))
        for chunk, matches in search(train, finder, workers):
            clean.writelines(found.keep(chunk, matches))
            progress(len(matches))
        result = found.report()
        written.write(json.dumps(result, indent=1, ensure_ascii=False).encode(errors="replace"))
        written.write(b"\n")
    return result


@dataclass
class Found:
    """What has been found so far."""

    train: Path
    finder: Decontaminator
    counts: Contamination
    rows: int = 0
    dropped: int = 0
    matches: list[dict[str, Any]] = field(default_factory=list)
    marked: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, chunk: Chunk, found: list[list[Match]]) -> Iterator[bytes]:
        """Count a chunk and give back the lines that stay."""
        for (place, line), matches in zip(chunk, found, strict=True):
            self.counts.add(str(self.train), matches)
            self.matches += [self._entry(match) for match in matches]
            for match in matches[: MARKED - len(self.marked)]:
                self.marked.append({**self._entry(match), "prompt": self._mark(place, line, match)})
            self.rows += 1
            self.dropped += bool(matches)
            if not matches:
                yield line

    def _entry(self, match: Match) -> dict[str, Any]:
        return {
            "train_row": self.rows,
            "eval_file": self.finder.eval_sets[match.eval_set].name,
            "eval_row": match.eval_row,
            "overlap": match.overlap,
        }

    def _mark(self, place: str, line: bytes, match: Match) -> str:
        prompt = self.finder.eval_sets[match.eval_set].prompts[match.eval_row]
        if self.finder.mode != "ngram":
            return prompt
        return mark(prompt, turns_at(place, parse(place, line), self.finder.fields), self.finder.n)

    def report(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        lines = self.counts.table()
        for line, short in zip(lines, self.finder.too_short, strict=False):
            line["eval_file"] = line.pop("eval_set")
            line["too_short"] = short
            del line["source"], line["train_rows"]
        rule = {name: getattr(self.finder, name) for name in ("mode", "n", "threshold", "fields")}
        return {
            "train_file": str(self.train),
            "rows_read": self.rows,
            "rows_kept": self.rows - self.dropped,
            "rows_dropped": self.dropped,
            "rule": {**rule, "dataset_threshold": self.counts.dataset_threshold},
            "evals": lines,
            "matches": self.matches,
            "marked": self.marked,
        }


def check_paths(train: Path, against: Sequence[Path], out: Path, report: Path) -> None:
    """Refuse to write over what is read."""
    inputs = {path.resolve() for path in (train, *against)}
    for path in (out, report):
        if path.resolve() in inputs:
            raise DataError(f"{path} is an input and would be lost; write to another file")
        if not path.resolve().parent.is_dir():
            raise DataError(f"{path} cannot be written: there is no folder {path.parent}")
    if out.resolve() == report.resolve():
        raise DataError(f"{path} cannot be both the clean rows and the report; name two files")


@contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when all is written; what fails leaves nothing behind."""
    try:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as raw:
                if path.suffix == ".gz":  # no time and no name inside: equal rows, equal bytes
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                        yield packed  # type: ignore[misc]
                else:
                    yield raw
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def chunks(path: Path) -> Iterator[Chunk]:
    """The lines of a file in chunks; blank lines are no rows."""
    chunk: Chunk = []
    size = 0
    for place, line in open_lines(path):
        if line.strip():
            chunk.append((place, line))
            size += len(line)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def make_search(finder: Decontaminator) -> Callable[[Chunk], list[list[Match]]]:
    """The worker's function: a chunk -> the matches of each of its lines."""

    def search_chunk(chunk: Chunk) -> list[list[Match]]:
        turns = [turns_at(place, parse(place, line), finder.fields) for place, line in chunk]
        return finder.matches_of(turns)

    return search_chunk


def search(train: Path, finder: Decontaminator, workers: int | None) -> Iterator[Searched]:
    """Chunks and their matches, in order."""
    waiting: deque[Chunk] = deque()

    def feed() -> Iterator[Chunk]:
        for chunk in chunks(train):
            waiting.append(chunk)
            yield chunk

    for matches in ordered(make_search, finder, feed(), workers):
        yield waiting.popleft(), matches
