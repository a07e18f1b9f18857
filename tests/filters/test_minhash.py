"""Shingles against sets of tuples, and the recall of the bands on planted pairs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from posttrain.filters.minhash import band_keys, choose_bands, jaccard, reaches, shingles


def planted(rng: random.Random, size: int, similarity: float) -> tuple[str, str]:
    """Two texts of `size` words of which they share 2 s J / (1 + J): Jaccard J at `words: 1`."""
    shared = round(2 * size * similarity / (1 + similarity))
    words = [f"w{n}" for n in rng.sample(range(10**6), 2 * size - shared)]
    return " ".join(words[:size]), " ".join(words[size - shared :])


def test_shingles_by_hand() -> None:
    # a b c | b c d and b c d | c d e: one of three in common
    assert jaccard(shingles("a b c d", 3), shingles("B  c\nd e", 3)) == pytest.approx(1 / 3)
    assert len(shingles("a b a b a b", 2)) == 2  # a b, b a
    assert len(shingles("one two", 5)) == 1  # shorter than a shingle: the whole text
    assert jaccard(shingles("one two", 5), shingles("one", 5)) == 0
    assert jaccard(shingles("2 + 3", 5), shingles("2 * 3", 5)) == 0  # signs are words
    assert jaccard(shingles("你好世界", 2), shingles("你好世人", 2)) == pytest.approx(2 / 4)
    assert len(shingles(" \n", 5)) == 0


@pytest.mark.parametrize("words", [1, 2, 5])
def test_shingles_equal_sets_of_tuples(words: int) -> None:
    rng = random.Random(words)
    for _ in range(50):
        a, b = (" ".join(rng.choices("abcdef", k=rng.randint(words, 40))) for _ in range(2))
        sets = [
            {tuple(t[i : i + words]) for i in range(len(t) - words + 1)}
            for t in (a.split(), b.split())
        ]
        expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        assert jaccard(shingles(a, words), shingles(b, words)) == pytest.approx(expected)


def test_bands_are_chosen_by_the_threshold() -> None:
    assert choose_bands(0.7, 128) == 32  # 1 - (1 - 0.7^4)^32 = 0.9998; 16 bands of 8 find 61%
    assert choose_bands(0.9, 128) == 16
    assert choose_bands(0.5, 128) == 64
    assert choose_bands(1.0, 128) == 1
    with pytest.raises(ValueError, match=r"16 permutations cannot find 99% of the pairs at 0\.1"):
        choose_bands(0.1, 16)


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9])
def test_recall_at_and_above_the_threshold(similarity: float) -> None:
    rng, found = random.Random(7), 0
    for _ in range(300):
        a, b = (shingles(text, 1) for text in planted(rng, 200, similarity))
        assert jaccard(a, b) == pytest.approx(similarity, abs=0.006)
        keys = [set(band_keys(s, 128, 32, 1).tolist()) for s in (a, b)]
        found += bool(keys[0] & keys[1])
    assert found >= 0.99 * 300


def test_a_long_text_is_sketched_in_pieces() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    whole = np.unique(numbers)
    half = [band_keys(part, 128, 128, 1) for part in (whole[:8192], whole[8192:16384])]
    both = band_keys(whole[:16384], 128, 128, 1)
    assert np.all((both == half[0]) | (both == half[1]))  # a minimum is one of the parts' minima


def test_reaches_is_exact_at_the_threshold() -> None:
    a, b = (np.arange(n, dtype=np.uint32) for n in (7, 10))
    assert reaches(a, b, 0.7)
    assert not reaches(a, b, 0.701)
    assert not reaches(a[:6], b, 0.7)
    assert not reaches(a, a + np.uint32(1), 0.8)  # sizes allow it, six of eight do not
