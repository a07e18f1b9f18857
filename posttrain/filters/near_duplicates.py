"""Drops rows that say nearly what an earlier row said: MinHash finds, exact Jaccard decides.

MinHash: Broder 1997. WebR (arXiv:2504.15573) removes requests at 0.7 with 128 permutations,
MT-NLG (arXiv:2201.11990) documents at 0.9. Texts near the threshold need many bands of few rows,
and what MinHash proposes is only a candidate: each one is verified on the shingles.
"""

from __future__ import annotations

import functools
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.filters.base import FIELDS, check_option, contents, split_words
from posttrain.filters.hash_table import HashTable
from posttrain.formats import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Shingles = NDArray[np.uint32]

_ODD, _MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd multipliers of 64 bits


def shingles(text: str, words: int = 5) -> Shingles:
    """The set of runs of `words` words and signs of a text, each hashed to 32 bits, sorted.

    A shorter text is one shingle, a text without words none. Two texts of n and m shingles
    share one by mistake with probability n m / 2^32.
    """
    import numpy as np

    tokens = split_words(text, signs=True)
    if not tokens:
        return np.empty(0, np.uint32)
    ids = np.fromiter((zlib.crc32(t.encode("utf-8", "surrogatepass")) for t in tokens), np.uint64)
    count = max(1, len(ids) - words + 1)
    hashed = np.full(count, len(ids) if len(ids) < words else words, np.uint64)
    for i in range(min(words, len(ids))):
        hashed = mixed((hashed + ids[i : i + count]) * np.uint64(_ODD))
    return np.unique((hashed >> np.uint64(32)).astype(np.uint32))


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over all 64."""
    import numpy as np

    values = (values ^ (values >> np.uint64(32))) * np.uint64(_MIX)
    return values ^ (values >> np.uint64(32))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared shingles over all shingles of two non-empty sets."""
    import numpy as np

    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def reaches(a: Shingles, b: Shingles, threshold: float) -> bool:
    """The Jaccard is at least this; the sizes alone may rule it out."""
    shorter, longer = sorted((len(a), len(b)))
    return shorter / longer >= threshold and jaccard(a, b) >= threshold


def choose_bands(threshold: float, num_perm: int) -> int:
    """The fewest bands (a divisor of `num_perm`) that find 99% of the pairs at the threshold.

    A pair of Jaccard s shares one of b bands of r rows with probability 1 - (1 - s^r)^b:
    32 bands of 4 rows find 99.98% at 0.7, 16 bands of 8 rows find 61%.
    """
    for bands in (b for b in range(1, num_perm + 1) if num_perm % b == 0):
        if (1 - threshold ** (num_perm // bands)) ** bands <= 0.01:
            return bands
    raise ValueError(f"{num_perm} permutations cannot find 99% of the pairs at {threshold}")


@functools.lru_cache(maxsize=4)
def _blank(num_perm: int, seed: int) -> Any:
    from datasketch import MinHash  # pulls in scipy: half a second

    # the shingles are hashes already
    return MinHash(num_perm=num_perm, seed=seed, hashfunc=int, scheme="affine32")


def band_keys(shingle_set: Shingles, num_perm: int, bands: int, seed: int) -> NDArray[np.uint64]:
    """One 64-bit key per band of the MinHash signature, different for different bands. [bands]"""
    import numpy as np

    signature = _blank(num_perm, seed).copy()
    for start in range(0, len(shingle_set), 8192):  # a long text in pieces: 4 MB at a time
        signature.update_batch(shingle_set[start : start + 8192])
    keys = np.arange(1, bands + 1, dtype=np.uint64)
    for column in signature.hashvalues.reshape(bands, -1).T:
        keys = mixed((keys + column) * np.uint64(_ODD))
    return keys


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
