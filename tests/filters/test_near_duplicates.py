"""What is dropped is verified, and nothing that comparing all rows would drop is kept."""

from __future__ import annotations

import random
from typing import Any

import pytest

from posttrain.filters.minhash import jaccard, shingles
from posttrain.filters.near_duplicates import NearDuplicates

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
