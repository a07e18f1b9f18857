"""Gopher's repetition rules for a document (arXiv:2112.11446 table A1).

duplicate lines, paragraphs            share of their number 0.30, of their characters 0.20
most frequent 2-, 3-, 4-gram           share of characters 0.20, 0.18, 0.16
duplicate 5-, 6-, 7-, 8-, 9-, 10-gram  share of characters 0.15, 0.14, 0.13, 0.12, 0.11, 0.10
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from posttrain.filters.base import FIELDS, check_option, contents
from posttrain.formats import Row

_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
_PARTS = {"lines": re.compile(r"\n+"), "paragraphs": re.compile(r"\n{2,}")}


@dataclass(frozen=True)
class GopherRepetition:
    """The chosen turns of a row are read as one document; words stand between white space.

    Only the second and later occurrences of anything count as duplicates, and the characters are
    those of words. Made for web pages: code repeats its lines without harm.

    Attributes:
        fields: `all` (user and assistant), `prompt` or `answer`.
    """

    fields: str = "answer"

    def __post_init__(self) -> None:
        check_option("fields", self.fields, FIELDS)

    def __call__(self, row: Row) -> str | None:
        text = "\n\n".join(contents(row, self.fields)).strip()
        for name, cut in _PARTS.items():
            number, characters = duplicate_shares([part.strip() for part in cut.split(text)])
            if number > 0.30 or characters > 0.20:
                return f"too many duplicate {name}"
        words = text.split()
        for n, most in _TOP.items():
            if top_share(words, n) > most:
                return f"one {n}-gram makes up more than {most:.0%}"
        for n, most in _DUPLICATE.items():
            share = repeated_share(words, n)
            if share > most:
                return f"duplicate {n}-grams make up more than {most:.0%}"
            if share <= min(_DUPLICATE.values()):
                return None  # a repeated (n + 1)-gram is made of repeated n-grams
        return None


def duplicate_shares(parts: list[str]) -> tuple[float, float]:
    """Parts that occurred before: their share of the number and of the characters."""
    parts = [part for part in parts if part]
    if not parts:
        return 0.0, 0.0
    extra = Counter(parts)
    extra.subtract(extra.keys())
    characters = sum(map(len, parts))
    return extra.total() / len(parts), sum(len(p) * n for p, n in extra.items()) / characters


def top_share(words: list[str], n: int) -> float:
    """Characters in the most frequent n-gram (of several the longest), if it occurs twice."""
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0
    longest = max(sum(map(len, gram)) for gram, count in counts.items() if count == most)
    return most * longest / sum(map(len, words))


def repeated_share(words: list[str], n: int) -> float:
    """Characters within any n-gram that occurred before, none counted twice."""
    seen, covered, end = set(), 0, 0
    for i, gram in enumerate(zip(*(words[j:] for j in range(n)), strict=False)):
        if gram in seen:
            covered += sum(map(len, words[max(i, end) : i + n]))
            end = i + n
        seen.add(gram)
    return covered / sum(map(len, words)) if covered else 0.0
