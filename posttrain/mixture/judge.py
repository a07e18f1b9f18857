"""Filters that remember earlier rows: they read the marks that workers made, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from posttrain.filters import get_filters
from posttrain.mixture.part import Part, sets
from posttrain.store import Store, gather


def judge(parts: Sequence[Part], shared: int) -> None:
    """Note in every part which of its rows set-level filters drop, source by source in order.

    Args:
        parts: their filters are the source's own, and then the stage's.
        shared: how many are the stage's; these remember the rows of earlier sources too.
    """
    common: list[Any] = get_filters(parts[0].plan.filters[-shared:]) if parts and shared else []
    for part in parts:
        specs = part.plan.filters
        own: list[Any] = get_filters(specs[: len(specs) - shared])
        for i, rule in enumerate([*own, *common]):
            if not sets(rule):
                continue
            name = specs[i] if isinstance(specs[i], str) else specs[i]["name"]
            for row, mark in enumerate(marks_of(part.store, f"mark{i}")):
                why = rule.judge(mark) if mark and row not in part.dropped else None
                if why:
                    part.dropped[row] = (name, why)


def marks_of(store: Store, column: str, batch: int = 10_000) -> Iterator[bytes]:
    """The marks of every row, in order."""
    for start in range(0, store.rows, batch):
        rows = np.arange(start, min(start + batch, store.rows))
        values, lengths = gather([store], np.zeros_like(rows), rows, column)
        data, place = values.tobytes(), 0
        for size in lengths.tolist():
            yield data[place : place + size]
            place += size
