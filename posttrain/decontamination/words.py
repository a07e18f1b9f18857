"""Words of a text: what an n-gram is made of, as strings and, many times faster, as hashes.

Every character is lower-cased by itself. A word is a run of word characters (`\\w`: Unicode
letters, digits, underscore); a character of a script that is written without spaces (Han, kana,
Thai, Lao, Khmer, Burmese) is a word of its own. Everything else only separates.

`words` is the definition. `word_hashes` gives a 64-bit number per word such that equal words have
equal numbers: whoever finds equal numbers still has to compare the words.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9d\U00020000-\U000323af"
)
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
BREAK = "\x00"  # stands between the turns of a block: a word that no text has

_SIZE = 0x323B1  # no letter lies beyond; the last entry answers for all that does
_WORD, _ALONE = 1, 2  # how a character takes part; 0 separates
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_STEP = np.uint64(0xD6E8FEB86659FD93)


def fold(text: str) -> str:
    """Lower case, one character for one character (which `str.lower` does not promise)."""
    lower = text.lower()
    if len(lower) == len(text) and "Σ" not in text:  # a final Σ becomes ς in str.lower
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return WORD.findall(fold(text))


def spans(text: str) -> list[tuple[int, int]]:
    """Where each word stands: start and end, in characters of `text`."""
    return [match.span() for match in WORD.finditer(fold(text))]


def word_hashes(text: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A number per word and the character at which the word starts; `BREAK` is a word.

    A word's number is the sum of v(c_i) * B**i over its characters, modulo 2**64, with i counted
    from the start of the word. All words are summed in one pass with i counted from the start of
    the text, and then divided by B**start.
    """
    kinds, values = _alphabet()
    if text.isascii():
        codes = np.frombuffer(text.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kind = kinds.take(codes, mode="clip")
    first = kind > 0
    first[1:] &= (kind[1:] == _ALONE) | (kind[:-1] != _WORD)
    starts = np.flatnonzero(first)
    if not len(starts):
        return np.zeros(0, np.uint64), starts
    up, down = powers(len(codes))
    weighted = values.take(codes, mode="clip")
    weighted *= up[: len(codes)]
    return np.add.reduceat(weighted, starts) * down[starts], starts


def hash_windows(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A number for every n hashes in a row: `[W]` -> `[max(W - n + 1, 0)]`."""
    count = max(len(hashes) - n + 1, 0)
    grams = hashes[:count].copy()
    for i in range(1, n):
        grams *= _STEP
        grams += hashes[i : i + count]
    return grams


def powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """B**i and B**-i modulo 2**64 for every i below `count` (and a few more)."""
    return _powers(max(count, 2**18).bit_length())


@cache
def _powers(bits: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rise = np.full(2**bits, _BASE, np.uint64)
    fall = np.full(2**bits, pow(_BASE, -1, 2**64), np.uint64)
    rise[0] = fall[0] = 1
    return np.multiply.accumulate(rise), np.multiply.accumulate(fall)


@cache
def _alphabet() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """For each character its part in words, and a scrambled number (0 where it separates)."""
    chars = [fold(chr(code)) for code in range(_SIZE - 1)]
    kinds = np.zeros(_SIZE, np.uint8)
    alone = re.compile(f"[{UNSPACED}{BREAK}]")
    for code, char in enumerate(chars):
        if alone.match(char):
            kinds[code] = _ALONE
        elif char.isalnum() or char == "_":
            kinds[code] = _WORD
    codes = np.array([*map(ord, chars), 0], np.uint64) + np.uint64(1)
    codes ^= codes << np.uint64(32)  # splitmix64's finaliser
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return kinds, np.where(kinds > 0, codes ^ (codes >> np.uint64(31)), np.uint64(0))
