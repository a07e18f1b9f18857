"""Drops conversations in which somebody says the same thing twice, or the answer is an echo."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.filters.base import conversations
from posttrain.formats import Message, Row


@dataclass(frozen=True)
class RepeatedTurns:
    """Compares turns word for word, white space at their ends aside.

    Attributes:
        min_characters: shorter turns may be repeated: a user says "Continue." more than once.
            An answer that equals the user's turn before it is an echo at any length.
    """

    min_characters: int = 20

    def __call__(self, row: Row) -> str | None:
        return next(filter(None, map(self._fault, conversations(row))), None)

    def _fault(self, messages: list[Message]) -> str | None:
        seen, before = set(), ("", "")
        for message in messages:
            role, content = turn = message["role"], message["content"].strip()
            if role == "assistant" and content and before == ("user", content):
                return "an answer repeats the user's turn"
            if role in ("user", "assistant") and len(content) >= self.min_characters:
                if turn in seen:
                    return f"a turn is repeated ({role})"
                seen.add(turn)
            before = turn
        return None
