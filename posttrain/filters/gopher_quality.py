"""Gopher's quality rules for a document (arXiv:2112.11446 appendix A.1.1)."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.filters.base import FIELDS, check_option, contents
from posttrain.formats import Row

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("-", "*", "•", "‣", "▪", "●", "◦")


@dataclass(frozen=True)
class GopherQuality:
    """The chosen turns of a row are read as one document; words stand between white space.

    Made for web pages: `min_words: 50` drops every short answer, and `min_stop_words: 2` is about
    English. Set either to 0 to leave it out.

    Attributes:
        min_words: fewest words.
        max_words: most words.
        min_word_length: least mean length of a word, in characters.
        max_word_length: greatest mean length of a word.
        max_symbols: most `#` per word, and most ellipses per word.
        max_bullets: largest share of lines that start with a bullet.
        max_ellipses: largest share of lines that end with an ellipsis.
        min_alphabetic: least share of words with a letter.
        min_stop_words: how many of the, be, to, of, and, that, have, with must occur.
        fields: `all` (user and assistant), `prompt` or `answer`.
    """

    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float = 3
    max_word_length: float = 10
    max_symbols: float = 0.1
    max_bullets: float = 0.9
    max_ellipses: float = 0.3
    min_alphabetic: float = 0.8
    min_stop_words: int = 2
    fields: str = "answer"

    def __post_init__(self) -> None:
        check_option("fields", self.fields, FIELDS)

    def __call__(self, row: Row) -> str | None:
        text = "\n\n".join(contents(row, self.fields))
        words = text.split()
        if not words:
            return None
        return self._of_words(text, words) or self._of_lines(text)

    def _of_words(self, text: str, words: list[str]) -> str | None:
        count = len(words)
        if count < self.min_words:
            return f"fewer than {self.min_words} words"
        if count > self.max_words:
            return f"more than {self.max_words} words"
        mean = sum(map(len, words)) / count
        if not self.min_word_length <= mean <= self.max_word_length:
            return f"mean word length outside {self.min_word_length} to {self.max_word_length}"
        if text.count("#") > self.max_symbols * count:
            return f"more than {self.max_symbols} # per word"
        if text.count("...") + text.count("…") > self.max_symbols * count:
            return f"more than {self.max_symbols} ellipses per word"
        if sum(any(map(str.isalpha, w)) for w in words) < self.min_alphabetic * count:
            return f"fewer than {self.min_alphabetic:.0%} of words have a letter"
        if self.min_stop_words and (
            len(_STOP_WORDS.intersection(map(str.lower, words))) < self.min_stop_words
        ):
            return f"fewer than {self.min_stop_words} common words of English"
        return None

    def _of_lines(self, text: str) -> str | None:
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if sum(line.startswith(_BULLETS) for line in lines) > self.max_bullets * len(lines):
            return f"more than {self.max_bullets:.0%} of lines are bullets"
        if sum(line.endswith(("...", "…")) for line in lines) > self.max_ellipses * len(lines):
            return f"more than {self.max_ellipses:.0%} of lines end with an ellipsis"
        return None
