"""LIMA's rules for answers from communities (arXiv:2305.11206 section 2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from posttrain.filters.base import contents
from posttrain.formats import Row

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_FIRST_PERSON = re.compile(r"\b(?:I|[Mm]y|[Mm]ine|[Mm]yself)\b(?!\.[a-z]\.)")
_OTHER_ANSWERS = re.compile(
    r"\b(?:as (?:already )?(?:mentioned|noted|said|stated|pointed out)|stack ?(?:exchange|overflow)"
    r"|(?:other|previous|accepted|above) answers?|@\w+'s answer)\b",
    re.IGNORECASE,
)
_LINK = re.compile(r"https?://|\bwww\.|!?\[[^\]\n]{0,200}\]\([^)\n]{0,500}\)|<(?:a|img)\s", re.I)


@dataclass(frozen=True)
class Lima:
    """Every answer must be of middle length, impersonal and complete in itself; code is not read.

    The paper removes links and images from an answer; a filter cannot, so it drops the row where
    `links` says so. Its other half, drawing rows so that small domains are not lost, is mixing.

    Attributes:
        min_characters: least length of an answer.
        max_characters: greatest length of an answer.
        links: `keep` or `drop` answers with links or images.
    """

    min_characters: int = 1200
    max_characters: int = 4096
    links: str = "keep"

    def __post_init__(self) -> None:
        if self.links not in ("keep", "drop"):
            raise ValueError(f"`links` must be keep or drop, got {self.links!r}")

    def __call__(self, row: Row) -> str | None:
        return next(filter(None, map(self._fault, contents(row, "answer"))), None)

    def _fault(self, answer: str) -> str | None:
        if len(answer) < self.min_characters:
            return f"an answer has fewer than {self.min_characters} characters"
        if len(answer) > self.max_characters:
            return f"an answer has more than {self.max_characters} characters"
        prose = _CODE.sub(" ", answer)
        if _FIRST_PERSON.search(prose):
            return "an answer is written in the first person"
        if _OTHER_ANSWERS.search(prose):
            return "an answer refers to other answers"
        if self.links == "drop" and _LINK.search(prose):
            return "an answer has links or images"
        return None
