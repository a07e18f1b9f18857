"""MinHash finds, exact Jaccard decides: recall and precision on planted pairs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from posttrain.filters.near_duplicates import (
    NearDuplicates,
    band_keys,
    choose_bands,
    jaccard,
    shingles,
)

NEAR = "an earlier row is nearly the same"


def chat(user: str, assistant: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    }


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


@pytest.mark.parametrize(("similarity", "dropped"), [(0.5, 0), (0.66, 0), (0.74, 100), (0.9, 100)])
def test_what_is_dropped_is_verified(similarity: float, dropped: int) -> None:
    rng, keep = random.Random(3), NearDuplicates(words=1)
    reasons = []
    for _ in range(100):
        a, b = planted(rng, 120, similarity)
        assert keep({"text": a}) is None
        reasons.append(keep({"text": b}))
    assert reasons.count(NEAR) == dropped


def test_template_like_rows_are_kept_as_by_comparing_all() -> None:
    rng, keep = random.Random(1), NearDuplicates(words=2)
    texts = [
        "Write a {} about a {} in a {} and end with a {}".format(*rng.choices("abcdefgh", k=4))
        for _ in range(600)
    ]
    plain: list[str] = []
    for text in texts:
        new = shingles(text, 2)
        if all(jaccard(new, shingles(other, 2)) < 0.7 for other in plain):
            plain.append(text)
    kept = [text for text in texts if keep({"text": text}) is None]
    assert 10 < len(plain) < 300
    assert kept == plain


def test_which_turns_are_compared() -> None:
    one = chat("Name an animal that lives in the sea.", "The whale is such an animal.")
    two = chat("Name an animal that lives in the sea.", "Dolphins, of course, and many others too.")
    for fields, reason in (("prompt", NEAR), ("all", None), ("answer", None)):
        keep = NearDuplicates(fields=fields)
        assert keep(one) is None
        assert keep(two) == reason
    keep = NearDuplicates()
    other_system = {"messages": [{"role": "system", "content": "X."}, *one["messages"][1:]]}
    assert keep(one) is None
    assert keep(other_system) == NEAR


def test_rows_without_words_are_never_duplicates() -> None:
    keep = NearDuplicates()
    assert keep.mark({"text": " "}) is None
    assert [keep({"text": " "}) for _ in range(3)] == [None] * 3


def test_a_long_text_is_sketched_in_pieces() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    whole = np.unique(numbers)
    half = [band_keys(part, 128, 128, 1) for part in (whole[:8192], whole[8192:16384])]
    both = band_keys(whole[:16384], 128, 128, 1)
    assert np.all((both == half[0]) | (both == half[1]))  # a minimum is one of the parts' minima
