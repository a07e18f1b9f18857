"""Drops rows that say nearly what an earlier row said: MinHash finds, exact Jaccard decides.

WebR (arXiv:2504.15573) removes requests at 0.7 with 128 permutations, MT-NLG (arXiv:2201.11990)
documents at 0.9.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass

from posttrain.filters.base import FIELDS, check_option, contents
from posttrain.filters.hash_table import HashTable
from posttrain.filters.minhash import band_keys, choose_bands, reaches, shingles
from posttrain.formats import Row


@dataclass(eq=False)
class NearDuplicates:
    """Compares with the rows kept so far; the first of a group stays.

    Memory: per kept row about 1 KB (32 bands) and 4 bytes per shingle, so some 3 GB for a
    million rows of 500 words; with `fields: prompt` far less. `exact_duplicates` before it
    makes it cheaper.

    Attributes:
        threshold: Jaccard similarity of the shingles from which a row is a duplicate.
        words: words and signs in a shingle.
        num_perm: permutations of the MinHash signature.
        bands: bands that the signature is cut into, a divisor of `num_perm`; left out, the
            fewest that find 99% of the pairs at the threshold: 32 for 0.7.
        fields: `all` (user and assistant), `prompt` (user) or `answer` (assistant).
        seed: of the permutations.

    Raises:
        ValueError: an option outside its range.
    """

    threshold: float = 0.7
    words: int = 5
    num_perm: int = 128
    bands: int | None = None
    fields: str = "all"
    seed: int = 1

    def __post_init__(self) -> None:
        check_option("fields", self.fields, FIELDS)
        if not 0 < self.threshold <= 1:
            raise ValueError(f"`threshold` must be above 0 and at most 1, got {self.threshold}")
        if self.words < 1 or self.num_perm < 1:
            raise ValueError("`words` and `num_perm` must be at least 1")
        self._bands = self.bands or choose_bands(self.threshold, self.num_perm)
        if self.num_perm % self._bands:
            raise ValueError(f"`bands` must divide num_perm {self.num_perm}, got {self.bands}")
        self._table = HashTable()
        self._kept, self._ends = array("I"), array("Q", [0])

    def mark(self, row: Row) -> bytes | None:
        """Band keys (8 bytes each), then the shingles (4 bytes each)."""
        found = shingles("\n".join(contents(row, self.fields)), self.words)
        if not len(found):
            return None
        return band_keys(found, self.num_perm, self._bands, self.seed).tobytes() + found.tobytes()

    def judge(self, mark: bytes) -> str | None:
        """The reason to drop a row that a kept row nearly equals."""
        import numpy as np

        keys = np.frombuffer(mark, np.uint64, self._bands).tolist()
        found = np.frombuffer(mark, np.uint32, offset=8 * self._bands)
        candidates = Counter(row for key in keys for row in self._table.find(key))
        for row, _ in candidates.most_common():
            start, end = self._ends[row], self._ends[row + 1]
            other = np.frombuffer(self._kept[start:end], np.uint32)
            if reaches(found, other, self.threshold):
                return "an earlier row is nearly the same"
        for key in keys:
            self._table.add(key, len(self._ends) - 1)
        self._kept.frombytes(mark[8 * self._bands :])
        self._ends.append(len(self._kept))
        return None

    def __call__(self, row: Row) -> str | None:
        mark = self.mark(row)
        return None if mark is None else self.judge(mark)
