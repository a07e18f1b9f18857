"""Tokenised rows: how long each is once laid out, into which packs they go, and their batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from posttrain.errors import DataError
from posttrain.packing.best_fit import Bins, best_fit
from posttrain.packing.layout import EMPTY, Group, pack

PAIR = ("prompt_ids", "chosen_ids", "rejected_ids")
AT_ONCE = 10_000

Row = dict[str, Any]


class Rows(Dataset[Any]):
    """A data set that answers `None` for index -1, tells each row its index, and takes lists."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row | None: ...
    @overload
    def __getitem__(self, index: list[int]) -> list[Row | None]: ...
    def __getitem__(self, index: int | list[int]) -> Row | list[Row | None] | None:
        if isinstance(index, list):
            return [self[i] for i in index]
        return None if index < 0 else {**self.rows[index], "index": index}


@dataclass(frozen=True)
class Collator:
    """Rows of tokens -> a packed batch. The kind of row is read from its fields.

    Attributes:
        sources: name -> index of every source.
    """

    sources: Mapping[str, int]

    def group(self, row: Mapping[str, Any]) -> Group:
        """One tokenised row as a group: an SFT row alone, or a pair under its prompt."""
        source = self.sources.get(row.get("source") or "", 0)
        if "prompt_ids" in row:
            pair = [(row[f"{side}_ids"],) * 2 for side in ("chosen", "rejected")]
            return Group(row["prompt_ids"], pair, source)
        return Group([], [(row["input_ids"], row["labels"])], source)

    def __call__(self, rows: Sequence[Mapping[str, Any] | None]) -> dict[str, torch.Tensor]:
        real = [row for row in rows if row is not None]
        batch = pack([self.group(row) for row in real] or [EMPTY])
        batch["index"] = torch.tensor([row["index"] for row in real], dtype=torch.long)
        return batch


def row_lengths(rows: Any) -> NDArray[np.int64]:
    """`[N]` tokens that each row takes in a packed batch.

    A pair takes its prompt once and both answers, a problem its prompt.

    Args:
        rows: a `datasets.Dataset`, whose tokens are not read, or any sequence of mappings.
    """
    names = set(getattr(rows, "column_names", None) or rows[0])
    fields = [f for f in ("input_ids", *PAIR) if f in names]
    lengths = np.zeros(len(rows), dtype=np.int64)
    if not hasattr(rows, "select_columns"):
        for i, row in enumerate(rows):
            lengths[i] = sum(len(row[field]) for field in fields)
        return lengths
    import pyarrow.compute as pc

    start = 0
    for table in rows.select_columns(fields).with_format("arrow").iter(AT_ONCE):
        for field in fields:
            lengths[start : start + len(table)] += pc.list_value_length(table[field]).to_numpy()
        start += len(table)
    return lengths


def pack_rows(rows: Any, max_length: int) -> Bins:
    """Best-fit packs of a whole data set.

    A pack holds `max_length` tokens, of pairs twice as many: each of a pair's sides may have
    `max_length`, and the two stay together.

    Raises:
        DataError: a row is longer than that.
    """
    lengths = row_lengths(rows)
    pairs = "chosen_ids" in (getattr(rows, "column_names", None) or rows[0])
    sides = 2 if pairs else 1
    if len(lengths) and lengths.max() > max_length * sides:
        longest = int(lengths.argmax())
        raise DataError(
            f"row {longest} has {lengths[longest]} tokens, and a pack of max_length {max_length} "
            f"holds {max_length * sides}; set max_length to at least "
            f"{-(-int(lengths[longest]) // sides)}"
        )
    return best_fit(lengths, max_length * sides)
