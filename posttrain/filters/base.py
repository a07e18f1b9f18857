"""What a filter is, and how one reads a row of any shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from posttrain.formats import Message, Row

Filter = Callable[[Row], str | None]

FIELDS = ("all", "prompt", "answer")
_LISTS = ("messages", "prompt", "chosen", "rejected")
_ROLES = {
    "all": ("user", "assistant", "text"),
    "prompt": ("user", "text"),
    "answer": ("assistant", "text"),
}
# Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, Han. Each character is a word.
_UNSPACED = (
    "\u0e01-\u0e30\u0e81-\u0eb0\u1000-\u102a\u1780-\u17b3\u3041-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W_{_UNSPACED}]+|[{_UNSPACED}]")
_WORD_OR_SIGN = re.compile(rf"[^\W_{_UNSPACED}]+|[^\w\s]|[_{_UNSPACED}]")


class Flag(str):
    """A reason that is counted under "flagged" while the row is kept."""

    __slots__ = ()


@runtime_checkable
class SetFilter(Protocol):
    """A filter that compares a row with the rows before it.

    `mark` is stateless and may run in any worker process; `judge` remembers, and is called in one
    process, in the order of the rows. Calling the filter does both.
    """

    def mark(self, row: Row) -> bytes | None:
        """What `judge` must know of the row; `None` when there is nothing to compare."""
        ...

    def judge(self, mark: bytes) -> str | None:
        """The reason to drop the row, or `None` to keep and remember it."""
        ...

    def __call__(self, row: Row) -> str | None: ...


def turns(row: Row) -> Iterator[Message]:
    """Every turn of the row once, both answers of a pair too; a text is one turn of role `text`."""
    for name in _LISTS:
        if isinstance(row.get(name), list):
            yield from row[name]
    if isinstance(row.get("text"), str):
        yield {"role": "text", "content": row["text"]}


def conversations(row: Row) -> list[list[Message]]:
    """The conversations that the row holds: two for a pair (chosen first), one otherwise."""
    if "chosen" in row:
        return [[*row.get("prompt", ()), *row[side]] for side in ("chosen", "rejected")]
    return [list(turns(row))]


def contents(row: Row, fields: str = "all") -> list[str]:
    """The text of the user's and assistant's turns, or of one of the two; a text row is both.

    Of a preference pair the chosen conversation is read: a bad rejected answer is no fault.
    """
    roles = _ROLES[fields]
    return [m["content"] for m in conversations(row)[0] if m["role"] in roles and m["content"]]


def split_words(text: str, signs: bool = False) -> list[str]:
    """Lower-case runs of letters and digits of any script; with `signs`, punctuation too."""
    return (_WORD_OR_SIGN if signs else _WORD).findall(text.lower())


def check_option(option: str, given: str, allowed: Sequence[str]) -> None:
    """Raises: ValueError: an option outside its allowed values."""
    if given not in allowed:
        raise ValueError(f"`{option}` must be one of {', '.join(allowed)}, got {given!r}")
