"""Training rows against evaluation sets: an index that is built once and asked in batches."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posttrain.decontamination.embedding import Embed, Embeddings
from posttrain.decontamination.exact import Exact
from posttrain.decontamination.ngrams import Ngrams
from posttrain.decontamination.prompts import EvalSet, Fields, user_turns
from posttrain.errors import DataError, nearest
from posttrain.formats import Row

Search = Callable[[Sequence[Sequence[str]]], list[dict[int, float]]]

MODES: dict[str, type[Ngrams] | type[Exact] | type[Embeddings]] = {
    "ngram": Ngrams,
    "exact": Exact,
    "embedding": Embeddings,
}


@dataclass(frozen=True)
class Match:
    """A training row that holds an evaluation prompt.

    Attributes:
        eval_set, eval_row: indices, from 0.
        overlap: share of the prompt's words that the row covers; cosine in mode `embedding`.
    """

    eval_set: int
    eval_row: int
    overlap: float


class Decontaminator:
    """Finds evaluation prompts in training rows. Can be pickled and sent to worker processes.

    Args:
        eval_sets: what to look for.
        mode: `ngram`, `exact` or `embedding`.
        n: words of an n-gram (mode `ngram`).
        threshold: least overlap or similarity; 0 in mode `ngram`: any shared n-gram.
        fields: what is read of a training row; see `user_turns`.
        embed: the embedder of mode `embedding`; default: `Lexical`.

    Raises:
        DataError: no evaluation sets, an unknown mode, or numbers that make no sense.
    """

    def __init__(
        self,
        eval_sets: Sequence[EvalSet],
        mode: str = "ngram",
        n: int = 8,
        threshold: float = 0.5,
        fields: Fields = "prompt",
        embed: Embed | None = None,
    ) -> None:
        check(mode, n, threshold)
        if not eval_sets:
            raise DataError("there is no evaluation set to compare with; give at least one")
        self.eval_sets, self.fields = tuple(eval_sets), fields
        self.mode, self.n, self.threshold = mode, n, threshold
        prompts = [prompt for one in eval_sets for prompt in one.prompts]
        self.ends: list[int] = []  # where each set ends in the list of all prompts
        for one in eval_sets:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(one.prompts))
        self.search: Search
        self.too_short = [0] * len(eval_sets)  # prompts per set that have no n-gram
        if mode == "ngram":
            self.search = ngrams = Ngrams(prompts, n, threshold)
            for doc in ngrams.short.nonzero()[0].tolist():
                self.too_short[bisect.bisect_right(self.ends, doc)] += 1
        elif mode == "exact":
            self.search = Exact(prompts)
        else:
            self.search = Embeddings(prompts, threshold, embed)

    def matches(self, rows: Sequence[Row]) -> list[list[Match]]:
        """For each row its matches, by evaluation set and row.

        Raises:
            DataError: a row in which no prompt can be found.
        """
        return self.matches_of([user_turns(row, self.fields) for row in rows])

    def matches_of(self, turns: Sequence[Sequence[str]]) -> list[list[Match]]:
        """The same for rows that are lists of turns already."""
        return [
            [self._match(doc, found[doc]) for doc in sorted(found)] for found in self.search(turns)
        ]

    def _match(self, doc: int, overlap: float) -> Match:
        number = bisect.bisect_right(self.ends, doc)
        return Match(number, doc - (self.ends[number - 1] if number else 0), overlap)


def check(mode: str, n: int, threshold: float) -> None:
    """Refuse settings that make no sense.

    Raises:
        DataError: with what is allowed.
    """
    if mode not in MODES:
        raise DataError(f"unknown mode {mode!r}{nearest(str(mode), MODES)}")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 1000:
        raise DataError(f"`n` must be a whole number from 1 to 1000, got {n!r}")
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise DataError(f"`threshold` must be a number from 0 to 1, got {threshold!r}")
    if not 0 <= threshold <= 1 or (mode == "embedding" and threshold == 0):
        above = "above 0, up to 1" if mode == "embedding" else "from 0 to 1"
        raise DataError(f"`threshold` must be {above}, got {threshold!r}")


def drop_reason(matches: Sequence[Match], eval_sets: Sequence[EvalSet]) -> str:
    """Why a row with matches is dropped; the row of the prompt stands behind `, got`."""
    best = max(matches, key=lambda match: match.overlap)
    return (
        f"it holds a prompt of the evaluation set {eval_sets[best.eval_set].name}"
        f", got its row {best.eval_row} with an overlap of {best.overlap:.0%}"
    )
