"""Drops rows that are too short or too long."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.filters.base import check_option, conversations
from posttrain.formats import ROLES, Row

UNITS = ("characters", "words", "turns")


@dataclass(frozen=True)
class Length:
    """Measures each conversation of the row (a pair has two); a text row is one turn of any role.

    Attributes:
        min: least length allowed.
        max: greatest length allowed; none when left out.
        unit: `characters` (Unicode code points), `words` (between white space) or `turns`.
        role: only the turns of this role: `user`, `assistant`, `system`, `tool` or `all`.
        per: `row` measures the sum over the turns, `turn` each turn.

    Raises:
        ValueError: an option outside its values, or no bound at all.
    """

    min: int = 0
    max: int | None = None
    unit: str = "words"
    role: str = "all"
    per: str = "row"

    def __post_init__(self) -> None:
        check_option("unit", self.unit, UNITS)
        check_option("role", self.role, ("all", *ROLES))
        check_option("per", self.per, ("row", "turn"))
        if self.per == "turn" and self.unit == "turns":
            raise ValueError("`unit: turns` counts the turns of a row; remove `per: turn`")
        if self.min <= 0 and self.max is None:
            raise ValueError("give `min`, `max` or both")
        if self.max is not None and self.max < max(self.min, 0):
            raise ValueError(f"`max` {self.max} is below `min` {self.min}")

    def __call__(self, row: Row) -> str | None:
        who = "" if self.role == "all" else f"{self.role} "
        for messages in conversations(row):
            sizes = [
                self._size(m["content"])
                for m in messages
                if self.role in ("all", m["role"]) or m["role"] == "text"
            ]
            for size in sizes if self.per == "turn" else [sum(sizes)]:
                if size < self.min:
                    return f"fewer than {self.min} {who}{self.unit}, got {size}"
                if self.max is not None and size > self.max:
                    return f"more than {self.max} {who}{self.unit}, got {size}"
        return None

    def _size(self, content: str) -> int:
        if self.unit == "turns":
            return 1
        return len(content) if self.unit == "characters" else len(content.split())
