"""Finds answers that announce themselves: "Sure! Here is the poem:".

WebR (arXiv:2504.15573) removes such a first line; a filter can only drop or flag the row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from posttrain.filters.base import Flag, check_option, contents
from posttrain.formats import Row

_PREFACE = re.compile(
    r"\A\s*(?:"
    r"(?:sure|certainly|of course|absolutely|gladly|great question|okay|ok|no problem)\b"
    r"(?:[^\n]{0,200}:|(?: thing)?[!.,])[ \t]*(?:\n|here\b|i['\u2019]|i\b)"
    r"|(?:here(?:['\u2019]s| is| are)|below (?:is|are)|the following (?:is|are))\b"
    r"[^\n]{0,200}:[ \t]*\n)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ChattyPrefaces:
    """Attributes:
    action: `drop` the row, or `flag` it: it is kept and counted.
    """

    action: str = "drop"

    def __post_init__(self) -> None:
        check_option("action", self.action, ("drop", "flag"))

    def __call__(self, row: Row) -> str | None:
        if "text" not in row and any(map(_PREFACE.match, contents(row, "answer"))):
            reason = "an answer announces itself"
            return reason if self.action == "drop" else Flag(reason)
        return None
