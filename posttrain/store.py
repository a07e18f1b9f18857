"""Rows on disk: a content-addressed cache of ragged columns, read by row at constant memory.

A *store* is a folder that holds columns. A column is the values of all rows end to end in
`<name>.bin` and where each row ends in `<name>.end` (int64). Rows are read with `pread`, so a
store of any size costs no memory and no mapped pages. A store is written chunk by chunk; what each
chunk added stands in `chunks.jsonl`, and an interrupted build goes on after the last whole one.

    store = cached(key, columns, build)      # built once per key, whoever asks first
    store.chunks                             # what the builder noted per chunk
    store.read("row", 17)                    # bytes of one row
    gather([store], which, rows, "row")      # values and lengths of many rows
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.errors import RunError

Ragged = tuple[np.ndarray, np.ndarray]  # values of all rows end to end, and each row's length
DONE = "store.json"
CHUNKS = "chunks.jsonl"
FLEETING = "rows"


def cache_root() -> Path:
    """Where stores live: `POSTTRAIN_CACHE`, or ~/.cache/posttrain. Safe to delete at any time."""
    given = os.environ.get("POSTTRAIN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given or Path(base) / "posttrain").expanduser()


def key_of(**parts: Any) -> str:
    """The key of whatever these parts decide: SHA-256 of their JSON."""
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def texts(values: Iterable[str | bytes]) -> Ragged:
    """A column of texts, as UTF-8 bytes."""
    parts = [v.encode() if isinstance(v, str) else v for v in values]
    lengths = np.fromiter((len(p) for p in parts), np.int64, len(parts))
    return np.frombuffer(b"".join(parts), np.uint8), lengths


@dataclass
class Store:
    """A finished store.

    Attributes:
        folder: where it is.
        columns: name -> numpy type of its values (`uint8` for texts).
        rows: number of rows.
        chunks: what the builder noted, one mapping per chunk.
    """

    folder: Path
    columns: dict[str, str]
    rows: int
    chunks: list[dict[str, Any]]

    def __post_init__(self) -> None:
        self._files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # a worker opens the files itself

    def __del__(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                os.close(file)

    @property
    def key(self) -> str | None:
        """The key it was built under; `None` when it lasts only as long as it is used."""
        return None if self.folder.name == FLEETING else self.folder.name

    def file(self, name: str) -> int:
        """Descriptor of one of the folder's files."""
        if name not in self._files:
            self._files[name] = os.open(self.folder / name, os.O_RDONLY)
        return self._files[name]

    def span(self, column: str, row: int) -> tuple[int, int]:
        """Where a row's values stand in the column, counted in values."""
        first = max(row - 1, 0)
        data = os.pread(self.file(f"{column}.end"), 8 * (row + 1 - first), 8 * first)
        if row < 0 or len(data) < 8 * (row + 1 - first):
            raise IndexError(row)
        ends = np.frombuffer(data, np.int64)
        return (0 if row == 0 else int(ends[0])), int(ends[-1])

    def read(self, column: str, row: int) -> bytes:
        """The bytes of one row."""
        size = np.dtype(self.columns[column]).itemsize
        start, end = self.span(column, row)
        return os.pread(self.file(f"{column}.bin"), (end - start) * size, start * size)

    def ends(self, column: str) -> np.ndarray:
        """`[rows]` where each row ends, read whole: 8 bytes a row."""
        return np.fromfile(self.folder / f"{column}.end", np.int64)

    def lengths(self, column: str) -> np.ndarray:
        """`[rows]` values per row."""
        return np.diff(self.ends(column), prepend=0)

    def column(self, name: str) -> np.ndarray:
        """All values of a column in memory: for small ones of fixed width."""
        return np.fromfile(self.folder / f"{name}.bin", np.dtype(self.columns[name]))

    def spans(self, column: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rows start in the column, counted in values, and how many values each has."""
        if not self.rows:
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        ends = np.memmap(self.folder / f"{column}.end", np.int64, "r")
        starts = np.where(rows > 0, ends[np.maximum(rows - 1, 0)], 0)
        return starts, ends[rows] - starts


def gather(
    stores: Sequence[Store], which: np.ndarray, rows: np.ndarray, column: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values of rows of several stores, in the order asked for, and their lengths.

    Args:
        which: `[N]` store of each row.
        rows: `[N]` its row there.
    """
    kind = np.dtype(stores[0].columns[column])
    starts, lengths = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for i, store in enumerate(stores):
        mine = which == i
        if mine.any():
            starts[mine], lengths[mine] = store.spans(column, rows[mine])
    files = [store.file(f"{column}.bin") for store in stores]
    values = np.empty(int(lengths.sum()), kind)
    view, place = memoryview(values.view(np.uint8).data), 0
    sizes, places = (lengths * kind.itemsize).tolist(), (starts * kind.itemsize).tolist()
    for store_number, size, start in zip(which.tolist(), sizes, places, strict=True):
        if size:
            os.preadv(files[store_number], [view[place : place + size]], start)
        place += size
    return values, lengths


class Writer:
    """Appends chunks to a store that is not finished; one that was interrupted goes on.

    Attributes:
        chunks: what was noted of the chunks that are already there, to be skipped by the builder.
    """

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self.folder, self.columns = folder, dict(columns)
        folder.mkdir(parents=True, exist_ok=True)
        self.chunks, sizes = self._journal()
        self.files = {}
        for name in columns:
            for ending in ("bin", "end"):
                path = folder / f"{name}.{ending}"
                path.touch()
                os.truncate(path, sizes.get(path.name, 0))
                self.files[path.name] = path.open("ab")
        self.ends = {
            name: sizes.get(f"{name}.bin", 0) // np.dtype(kind).itemsize
            for name, kind in columns.items()
        }
        self.rows = sum(chunk["rows"] for chunk in self.chunks)
        (folder / CHUNKS).touch()
        self.journal = (folder / CHUNKS).open("a", encoding="utf-8")

    def _journal(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The whole chunks of an earlier attempt, and how long the files were after them."""
        path = self.folder / CHUNKS
        chunks: list[dict[str, Any]] = []
        sizes: dict[str, int] = {}
        if path.exists():
            whole = path.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            for line in whole.splitlines():
                note = json.loads(line)
                sizes = note.pop("sizes")
                chunks.append(note)
            os.truncate(path, len(whole))
        return chunks, sizes

    def append(self, columns: Mapping[str, Ragged], note: Mapping[str, Any]) -> None:
        """Add the rows of one chunk, and what is to be remembered of it."""
        rows = len(columns[next(iter(self.columns))][1])
        for name, (values, lengths) in columns.items():
            self.files[f"{name}.bin"].write(np.ascontiguousarray(values, self.columns[name]).data)
            ends = self.ends[name] + np.cumsum(lengths, dtype=np.int64)
            self.files[f"{name}.end"].write(ends.data)
            self.ends[name] += int(np.sum(lengths))
        self.rows += rows
        for file in self.files.values():
            file.flush()
        sizes = {name: file.tell() for name, file in self.files.items()}
        chunk = {**note, "rows": rows}
        self.chunks.append(chunk)
        self.journal.write(json.dumps({**chunk, "sizes": sizes}) + "\n")
        self.journal.flush()

    def close(self) -> None:
        """Close the files."""
        for file in (*self.files.values(), self.journal):
            file.close()


def cached(
    key: str | None,
    columns: Mapping[str, str],
    build: Callable[[Writer], None],
    root: Path | None = None,
    waiting: Callable[[], None] | None = None,
) -> Store:
    """The store of a key, built now unless it is there.

    Another process that builds it is waited for, on a lock of the file system: without a time-out,
    and without a collective that could have one.

    Args:
        key: names everything that decides the content; `None`: the store lasts as long as its
            object.
        columns: name -> numpy type.
        build: appends the chunks that the writer does not have yet.
        root: default: `cache_root()`.
        waiting: called again and again while another process has the lock; it should take a moment.

    Raises:
        RunError: the cache folder cannot be written.
    """
    if key is None:
        return fleeting(columns, build)
    folder = (root or cache_root()) / key[:2] / key
    if not (folder / DONE).is_file():
        with locked(folder.with_suffix(".lock"), waiting):
            if not (folder / DONE).is_file():
                aside = folder.with_suffix(".partial")
                fill(aside, columns, build)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(aside, folder)
    return open_store(folder)


def fill(folder: Path, columns: Mapping[str, str], build: Callable[[Writer], None]) -> None:
    """Build a store in a folder; what is there of an earlier attempt is kept."""
    writer = Writer(folder, columns)
    try:
        build(writer)
    finally:
        writer.close()
    done = {"columns": dict(columns), "rows": writer.rows}
    (folder / DONE).write_text(json.dumps(done), encoding="utf-8")


def fleeting(columns: Mapping[str, str], build: Callable[[Writer], None]) -> Store:
    """A store that nothing names, in a temporary folder that goes with it."""
    above = tempfile.mkdtemp(prefix="posttrain-")
    folder = Path(above) / FLEETING
    try:
        fill(folder, columns, build)
    except BaseException:
        shutil.rmtree(above, ignore_errors=True)
        raise
    store = open_store(folder)
    weakref.finalize(store, shutil.rmtree, above, ignore_errors=True)
    return store


def open_store(folder: Path) -> Store:
    """A finished store."""
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    chunks = []
    for line in (folder / CHUNKS).read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        note.pop("sizes")
        chunks.append(note)
    return Store(folder, done["columns"], done["rows"], chunks)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file; it goes with the process, however that ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise RunError(
            f"the cache {path.parent} cannot be written ({error.strerror}); set POSTTRAIN_CACHE to"
            " a folder that can"
        ) from error
    with file:
        while waiting is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
