"""Words and letters that must, or must not, occur. Matching ignores case; words are literal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain.verifiers.constraints.relation import holds


def existence(response: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, also inside a longer word."""
    text = response.lower()
    return all(keyword.lower() in text for keyword in keywords)


def frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so often, also inside longer words."""
    return holds(response.lower().count(keyword.strip().lower()), relation, frequency)


def whole_word_count(response: str, word: str) -> int:
    """How often a word (or phrase) occurs that is no part of a longer word."""
    pattern = rf"(?<!\w){re.escape(word.strip())}(?!\w)"
    return sum(1 for _ in re.finditer(pattern, response, re.IGNORECASE))


def forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a word of its own."""
    return all(whole_word_count(response, word) == 0 for word in forbidden_words)


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter (or sign) occurs so often."""
    return holds(response.lower().count(letter.lower()), let_relation, let_frequency)
