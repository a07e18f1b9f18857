"""MinHash: which texts could share most of their shingles, and whether they do (Broder 1997).

Texts near the threshold need many bands of few rows, and what shares a band is only a candidate:
`reaches` decides on the shingles themselves.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, Any

from posttrain.filters.base import split_words

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
