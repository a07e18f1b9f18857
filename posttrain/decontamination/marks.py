"""Evaluation prompts with what a training row repeats of them between two brackets."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.decontamination.ngrams import matched, ngrams
from posttrain.decontamination.words import spans, words

OPEN, CLOSE = "⟦", "⟧"


def mark(prompt: str, turns: Sequence[str], n: int) -> str:
    """Put `⟦ ⟧` around each run of words that lies in n-grams shared with the row.

    A prompt of fewer than n words is marked as a whole: such a prompt matches as a whole.
    """
    row = words(prompt)
    flags = matched(row, ngrams(turns, n), n) if len(row) >= n else [True] * len(row)
    out, done = "", 0
    places = spans(prompt)
    for i, (start, end) in enumerate(places):
        if flags[i] and not (i and flags[i - 1]):
            out += prompt[done:start] + OPEN
            done = start
        if flags[i] and not (i + 1 < len(flags) and flags[i + 1]):
            out += prompt[done:end] + CLOSE
            done = end
    return out + prompt[done:]
