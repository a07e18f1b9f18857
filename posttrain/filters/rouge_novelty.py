"""Drops rows whose prompt is too like an earlier one: Self-Instruct's novelty rule.

arXiv:2212.10560 section 2.2: an instruction joins the pool when its ROUGE-L F with every one
in it is at most 0.7. The pool is the rows kept so far, so seeds go first.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.filters.base import FIELDS, check_option, contents, split_words
from posttrain.formats import Row


def rouge_l(a: Sequence[object], b: Sequence[object]) -> float:
    """F of the longest common subsequence of two token lists: 2 LCS / (len(a) + len(b))."""
    return 2 * lcs(a, b) / (len(a) + len(b)) if a and b else 0.0


def rouge_l_bound(a: Sequence[object], b: Sequence[object]) -> float:
    """Never below `rouge_l`: 2 x shared tokens, whatever their order / (len(a) + len(b))."""
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b)) if a and b else 0.0


def lcs(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the longest common subsequence, one integer operation per token of `b`.

    Bit-parallel, Hyyrö 2004: the zeros of `row` are the steps of the table's current row.
    """
    places: dict[object, int] = defaultdict(int)
    for i, token in enumerate(a):
        places[token] |= 1 << i
    full = row = (1 << len(a)) - 1
    for token in b:
        met = row & places.get(token, 0)
        row = ((row + met) | (row - met)) & full
    return len(a) - row.bit_count()


@dataclass(eq=False)
class RougeNovelty:
    """Compares with every row kept so far; words of any script, no stemming.

    Set-level: the order of the rows decides. An index of tokens gives the bound and leaves few
    pairs to align, but work still grows with the square of the rows: meant for tens of thousands of
    prompts. Memory: 12 bytes per word of the rows kept.

    Attributes:
        threshold: ROUGE-L F above which a row is dropped.
        fields: `prompt` (user), `answer` (assistant) or `all`.
        max_words: of longer texts only so many words are compared.
    """

    threshold: float = 0.7
    fields: str = "prompt"
    max_words: int = 1000

    def __post_init__(self) -> None:
        check_option("fields", self.fields, FIELDS)
        if not 0 < self.threshold <= 1:
            raise ValueError(f"`threshold` must be above 0 and at most 1, got {self.threshold}")
        if self.max_words < 1:
            raise ValueError(f"`max_words` must be at least 1, got {self.max_words}")
        self._kept: list[array[int]] = []
        self._lengths = array("I")
        # token -> the kept rows that hold it, and how often each does
        self._index: dict[int, tuple[array[int], array[int]]] = {}

    def mark(self, row: Row) -> bytes | None:
        """The tokens in their order, 4 bytes each."""
        words = split_words("\n".join(contents(row, self.fields)))[: self.max_words]
        hashed = (zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words)
        return array("I", hashed).tobytes() or None

    def judge(self, mark: bytes) -> str | None:
        """The reason to drop a row too like one that was kept."""
        tokens = array("I", mark)
        counts = Counter(tokens)
        for place in self._candidates(counts, len(tokens)):
            other = self._kept[place]
            if rouge_l(tokens, other) > self.threshold:
                return f"an earlier row has a ROUGE-L above {self.threshold}"
        for token, count in counts.items():
            rows, times = self._index.setdefault(token, (array("I"), array("I")))
            rows.append(len(self._kept))
            times.append(count)
        self._kept.append(tokens)
        self._lengths.append(len(tokens))
        return None

    def _candidates(self, counts: Counter[int], length: int) -> list[int]:
        """The kept rows that `rouge_l_bound` leaves, the likest first."""
        import numpy as np

        shared = np.zeros(len(self._kept), np.int64)
        for token in counts.keys() & self._index.keys():
            rows, times = (np.frombuffer(part, np.uint32) for part in self._index[token])
            shared[rows] += np.minimum(times, counts[token])
        bound = 2 * shared / (length + np.frombuffer(self._lengths, np.uint32))
        places = np.flatnonzero(bound > self.threshold)
        return places[np.argsort(-bound[places], kind="stable")].tolist()

    def __call__(self, row: Row) -> str | None:
        mark = self.mark(row)
        return None if mark is None else self.judge(mark)
