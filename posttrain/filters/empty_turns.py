"""Drops conversations in which a turn says nothing, as Tülu 3's scripts do (arXiv:2411.15124)."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.filters.base import turns
from posttrain.formats import Row


@dataclass(frozen=True)
class EmptyTurns:
    """Looks at every turn of the row; one that calls a tool needs no words."""

    def __call__(self, row: Row) -> str | None:
        for turn in turns(row):
            silent = turn["role"] != "text" and not turn["content"].strip()
            if silent and not turn.get("tool_calls"):
                return "a turn is empty"
        return None
