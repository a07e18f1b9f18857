"""Rows before tokens as a folder that `datasets` reads: `posttrain data build --text`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from posttrain.formats import Row
from posttrain.mixture import Rows

BATCH = 2000
TEXTS = ("name", "tool_call_id")  # of a message, where any row has them
AS_JSON = ("tool_calls", "tools")  # of no fixed shape: they stand as JSON text


def save_text(rows: Rows, folder: Path) -> str:
    """Write a folder that `datasets.load_from_disk` reads, batch by batch; SHA-256 of its rows.

    The columns are those that any row has. Tool calls and tools stand as JSON text, which `to_row`
    reads back.
    """
    schema = schema_of(rows)
    first = pa.Table.from_pylist([plain(row) for row in rows[:1]], schema=schema)
    one = Dataset(InMemoryTable(first), fingerprint="posttrain")
    one.save_to_disk(str(folder))
    [file] = folder.glob("*.arrow")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, one.data.schema) as writer:
        for start in range(0, len(rows), BATCH):
            part = [plain(row) for row in rows[start : start + BATCH]]
            batch = pa.RecordBatch.from_pylist(part, schema=schema)
            writer.write_batch(batch.replace_schema_metadata(one.data.schema.metadata))
    with file.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest()


def schema_of(rows: Rows) -> pa.Schema:
    """One schema for every row, found by looking at all of them once."""
    top: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, list) and name not in AS_JSON:
                top[name] = list
                for message in value:
                    inner |= dict.fromkeys(message)
            else:
                top.setdefault(name, pa.string())
    kinds = {"train": pa.bool_()}
    message = pa.struct([(name, kinds.get(name, pa.string())) for name in inner])
    fields = [(name, pa.list_(message) if kind is list else kind) for name, kind in top.items()]
    return pa.schema(fields)


def plain(row: Row) -> Row:
    """A row whose values have one shape in every row."""
    return dict(flat(row))


def flat(row: Row) -> Iterator[tuple[str, Any]]:
    """Fields of a row or a message."""
    for name, value in row.items():
        if name in AS_JSON:
            yield name, json.dumps(value, ensure_ascii=False)
        elif isinstance(value, list):
            yield name, [dict(flat(message)) for message in value]
        else:
            yield name, value
