"""An order over rows that stand in stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from posttrain.formats import Row
from posttrain.store import Store


@dataclass(eq=False)
class Rows(Sequence[Row]):
    """Rows of several sources in one order; each is read from disk when it is asked for.

    Attributes:
        stores, names: per source.
        which: `[N]` source of each row.
        row: `[N]` its row there.
    """

    stores: list[Store] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    which: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint16))
    row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))

    @classmethod
    def of(cls, parts: Sequence[tuple[Store, str, np.ndarray]]) -> Rows:
        """Source after source."""
        which = [np.full(len(rows), i, np.uint16) for i, (_, _, rows) in enumerate(parts)]
        return cls(
            [store for store, _, _ in parts],
            [name for _, name, _ in parts],
            np.concatenate([*which, np.empty(0, np.uint16)]),
            np.concatenate([*(rows for _, _, rows in parts), np.empty(0, np.int32)]),
        )

    def reordered(self, order: np.ndarray) -> Rows:
        """The same rows in another order."""
        return Rows(self.stores, self.names, self.which[order], self.row[order])

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, i: int) -> Row: ...
    @overload
    def __getitem__(self, i: slice) -> Rows: ...
    def __getitem__(self, i: int | slice) -> Row | Rows:
        if isinstance(i, slice):
            return Rows(self.stores, self.names, self.which[i], self.row[i])
        source = int(self.which[i])
        found: Row = json.loads(self.stores[source].read("row", int(self.row[i])))
        return {**found, "source": self.names[source]}

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)
