"""Rows of a store -> tokens in a store, on all cores; and rows of several stores as one data set.

The tokens of a source are kept under a key made of its rows, the tokenizer, the template and every
option, so changing one source tokenises only that one again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from posttrain.formats import Row
from posttrain.mixture.read import code_of
from posttrain.parallel import ordered
from posttrain.store import Ragged, Store, Writer, cached, gather, key_of
from posttrain.tokens import Tokenizer

COLUMNS = {
    "text": {"input_ids": "int32", "labels": "int32"},
    "conversation": {"input_ids": "int32", "labels": "int32"},
    "preference": {"prompt_ids": "int32", "chosen_ids": "int32", "rejected_ids": "int32"},
    "problem": {
        "prompt_ids": "int32",
        "prompt": "uint8",
        "ground_truth": "uint8",
        "verifier": "uint8",
    },
}
OPTIONAL = {"preference": {"margin": "float64"}}  # numbers that a row may have or not
FACTS = ("tokens", "trained_tokens", "truncated", "cut_answers", "without_eos")
NOTHING: Ragged = (np.empty(0, np.int64), np.empty(0, np.int64))
ROWS = 1000  # rows a worker tokenises at a time
WRITTEN = 2000  # rows per batch of the data set on disk


@dataclass(frozen=True)
class Job:
    """What a worker needs to tokenise rows of a source."""

    store: Store
    source: str
    kind: str
    tokenizer: Tokenizer


def token_store(
    job: Job, rows: np.ndarray, workers: int | None, progress: Callable[[int], None]
) -> Store:
    """The tokens of some rows of a source, from the cache where they were made before.

    Args:
        job: the source's rows and the tokenizer.
        rows: which of them, ascending.

    Returns:
        A store with the columns of the kind, `row` (where each came from), `facts` (`[rows, 5]`:
        see `FACTS` and `TokenBatch.counts`) and `sizes` (`[len(rows)]`: tokens of all rows that
        were asked for, before any was cut or left out).
    """
    optional = OPTIONAL.get(job.kind, {})
    columns = {"row": "int64", **COLUMNS[job.kind], **optional, "facts": "int32", "sizes": "int32"}

    def build(writer: Writer) -> None:
        starts = range(len(writer.chunks) * ROWS, len(rows), ROWS)
        chunks = (rows[start : start + ROWS] for start in starts)
        for made, note in ordered(make_tokenise, job, chunks, workers):
            writer.append(made, note)
            progress(note["read"])

    key = None
    if job.store.key is not None:
        key = key_of(
            rows=job.store.key,
            which=key_of(rows=rows.tolist()),
            kind=job.kind,
            tokenizer=job.tokenizer.fingerprint(),
            code=code_of("tokens", "store"),
        )
    return cached(key, columns, build)


def make_tokenise(job: Job) -> Callable[[np.ndarray], tuple[dict[str, Any], dict[str, Any]]]:
    """The worker's function: rows of the store -> columns of tokens, and what became of them."""

    def tokenise(which: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        rows: list[Row] = [json.loads(job.store.read("row", int(i))) for i in which]
        done = job.tokenizer.batch(job.kind, rows)
        made: dict[str, Ragged] = {"row": fixed(which[done.kept])}
        for name in COLUMNS[job.kind]:
            made[name] = ragged(done.table.column(name)) if len(done.kept) else NOTHING
        for name in OPTIONAL.get(job.kind, ()):
            made[name] = numbers(done.table, name)
        facts = [done.amounts.get(name, np.zeros(len(done.kept))) for name in FACTS]
        made["facts"] = (np.stack(facts, 1).ravel(), np.full(len(done.kept), len(FACTS)))
        made["sizes"] = fixed(done.sizes)
        reasons = Counter(reason for _, reason in done.reasons)
        return made, {"read": len(which), "dropped": dict(reasons)}

    return tokenise


def fixed(values: np.ndarray) -> Ragged:
    """A column of one value per row."""
    return values, np.ones(len(values), np.int64)


def ragged(column: pa.ChunkedArray) -> Ragged:
    """A column of lists or texts as values and lengths."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    if not len(array):
        return NOTHING
    if pa.types.is_string(array.type):
        array = array.cast(pa.binary())
        offsets = np.frombuffer(array.buffers()[1], np.int32)[: len(array) + 1]
        data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    else:
        offsets, data = array.offsets.to_numpy(), array.values.to_numpy()
    return data[offsets[0] : offsets[-1]], np.diff(offsets).astype(np.int64)


def numbers(table: pa.Table, name: str) -> Ragged:
    """A column of numbers that may be missing, in part or whole: one value or none per row."""
    if name not in table.column_names:
        return NOTHING[0], np.zeros(table.num_rows, np.int64)
    values = table.column(name).to_numpy()
    there = ~np.isnan(values)
    return values[there], there.astype(np.int64)


@dataclass
class Tokens:
    """Tokenised rows of several sources, in an order.

    Attributes:
        kind: of the rows.
        stores, names: tokens and name of every source.
        which, index: `[N]` source of each row, and its row there.
    """

    kind: str
    stores: list[Store]
    names: list[str]
    which: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def facts(self, source: int) -> dict[str, int]:
        """Rows of a source and the sums of their facts, repeats counted."""
        rows = self.index[self.which == source]
        sums = facts_of(self.stores[source])[rows].sum(0, dtype=np.int64).tolist()
        return {"rows": len(rows), **dict(zip(FACTS, sums, strict=True))}

    def lengths(self, source: int) -> np.ndarray:
        """Tokens of every row of a source, repeats counted."""
        return facts_of(self.stores[source])[self.index[self.which == source], 0]

    def columns(self) -> dict[str, str]:
        """Names and numpy types of the columns; optional ones only if any row has a value."""
        optional = OPTIONAL.get(self.kind, {}).items()
        there = {n: k for n, k in optional if any(len(s.column(n)) for s in self.stores)}
        return COLUMNS[self.kind] | there

    def batches(self, size: int = WRITTEN) -> Iterator[pa.RecordBatch]:
        """The rows in order, as Arrow."""
        names = pa.array(self.names, pa.string())
        for start in range(0, len(self), size):
            which, index = self.which[start : start + size], self.index[start : start + size]
            arrays: dict[str, pa.Array] = {}
            for name, kind in self.columns().items():
                values, lengths = gather(self.stores, which, index, name)
                arrays[name] = listed(values, lengths, kind)
            arrays["source"] = names.take(pa.array(which))
            yield pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))


def facts_of(store: Store) -> np.ndarray:
    """`[rows, 5]` facts of every row."""
    return store.column("facts").reshape(-1, len(FACTS))


def listed(values: np.ndarray, lengths: np.ndarray, kind: str) -> pa.Array:
    """Values and lengths as an Arrow column of lists, of texts, or of numbers or nulls."""
    if kind == "float64":
        numbers = np.zeros(len(lengths))
        numbers[lengths > 0] = values
        return pa.array(numbers, mask=lengths == 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if kind != "uint8":
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)


def order_tokens(
    kind: str, stores: Sequence[Store], names: Sequence[str], which: np.ndarray, rows: np.ndarray
) -> Tokens:
    """The tokens of rows that are named by their place in the untokenised stores.

    Rows that left no tokens behind (too long, say) leave the order too.

    Args:
        stores: tokens per source.
        which, rows: `[N]` source and row of each, repeats included.
    """
    index = np.full(len(rows), -1, np.int64)
    for i, store in enumerate(stores):
        mine, made = which == i, store.column("row")
        if len(made):
            place = np.minimum(np.searchsorted(made, rows[mine]), len(made) - 1)
            index[mine] = np.where(made[place] == rows[mine], place, -1)
    there = index >= 0
    return Tokens(kind, list(stores), list(names), which[there], index[there])


def save(tokens: Tokens, folder: Path) -> str:
    """Write a folder that `datasets.load_from_disk` reads, batch by batch.

    The folder is made by `datasets` itself for one row; only its Arrow file is written here, so
    that neither the rows nor a map of them is ever in memory whole.

    Returns:
        SHA-256 of the rows as they stand in the file.
    """
    from datasets import Dataset  # workers do without it
    from datasets.table import InMemoryTable

    first = next(tokens.batches(1), None)
    assert first is not None, "a stage without rows is refused before"
    one = Dataset(InMemoryTable(pa.Table.from_batches([first])), fingerprint="posttrain")
    one.save_to_disk(str(folder))
    [file] = folder.glob("*.arrow")
    schema = one.data.schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in tokens.batches():
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    with file.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest()
