"""One row against one prompt, word by word: the rule itself, and its result made visible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from posttrain.decontamination.words import spans, words

OPEN, CLOSE = "⟦", "⟧"

Grams = list[tuple[str, ...]]


def ngrams(text: str, n: int) -> Grams:
    """Every n words in a row, in order; none if there are fewer."""
    row = words(text)
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


prompt_ngrams = lru_cache(maxsize=8192)(ngrams)  # a prompt may be asked for by many rows


def row_ngrams(turns: Iterable[str], n: int) -> set[tuple[str, ...]]:
    """Every n-gram of a row; none reaches from one turn into another."""
    return {gram for turn in turns for gram in ngrams(turn, n)}


def matched(prompt: Grams, shared: set[tuple[str, ...]]) -> list[bool]:
    """For each word of a prompt (given as its n-grams) whether it lies in one that is shared."""
    n = len(prompt[0])
    flags = [False] * (len(prompt) + n - 1)
    for i, gram in enumerate(prompt):
        if gram in shared:
            flags[i : i + n] = [True] * n
    return flags


def mark(prompt: str, turns: Sequence[str], n: int) -> str:
    """Put `⟦ ⟧` around each run of words that lies in n-grams shared with the row.

    A prompt of fewer than n words is marked as a whole: such a prompt matches as a whole.
    """
    grams, places = ngrams(prompt, n), spans(prompt)
    flags = matched(grams, row_ngrams(turns, n)) if grams else [True] * len(places)
    out, done = "", 0
    for i, (start, end) in enumerate(places):
        if flags[i] and not (i and flags[i - 1]):
            out += prompt[done:start] + OPEN
            done = start
        if flags[i] and not (i + 1 < len(flags) and flags[i + 1]):
            out += prompt[done:end] + CLOSE
            done = end
    return out + prompt[done:]
