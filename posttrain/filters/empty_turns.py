"""Drops conversations in which a turn says nothing, as Tülu 3's scripts do (arXiv:2411.15124)."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.formats import Row


@dataclass(frozen=True)
class EmptyTurns:
    """Looks at every list of messages in the row."""

    def __call__(self, row: Row) -> str | None:
        for messages in row.values():
            if isinstance(messages, list) and any(not m["content"].strip() for m in messages):
                return "a turn is empty"
        return None
