"""LIMA: turns without names, the user first (arXiv:2305.11206)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row
from posttrain.sources.adapters.base import items


@dataclass(frozen=True)
class LIMA:
    """GAIR/lima.

        {"conversations": ["Can brain cells move? By movement I mean long distance migration …",
         "The question is relatively broad and one should take into account that the brain …"], …}

    Attributes:
        field: the column that holds the list of texts.
    """

    field: str = "conversations"

    def __call__(self, raw: Any) -> list[Row]:
        turns = items(raw, self.field)
        roles = ("user", "assistant")
        return [
            {"messages": [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]}
        ]
