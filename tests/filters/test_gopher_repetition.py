"""Gopher's repetition rules, counted by hand and by a plain reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.filters.gopher_repetition import (
    GopherRepetition,
    duplicate_shares,
    repeated_share,
    top_share,
)


def test_shares_by_hand() -> None:
    assert duplicate_shares(["ab", "c", "ab", "ab"]) == (2 / 4, 4 / 7)
    assert duplicate_shares([]) == (0, 0)
    words = ["a", "b", "a", "b", "cc"]
    assert top_share(words, 2) == 2 * 2 / 6  # a b twice, of six characters
    assert top_share(["a", "b", "c"], 2) == 0  # nothing twice
    assert repeated_share(words, 2) == 2 / 6  # the second a b
    assert repeated_share(["x", "y", "x", "y", "x", "y"], 2) == 4 / 6  # overlaps count once


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=25), st.integers(1, 4))
def test_repeated_share_against_a_mask(words: list[str], n: int) -> None:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    mask = [False] * len(words)
    for i, gram in enumerate(grams):
        if gram in grams[:i]:
            mask[i : i + n] = [True] * n
    covered = sum(len(word) for word, hit in zip(words, mask, strict=True) if hit)
    assert repeated_share(words, n) == covered / sum(map(len, words))
    # what lets the rule stop early: longer repeats lie within shorter ones
    assert repeated_share(words, n + 1) <= repeated_share(words, n)


UNIQUE = [f"word{i}" for i in range(100, 200)]  # seven characters each


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ".join(UNIQUE), None),
        ("\n".join([*UNIQUE[:7], "a", "a", "a", "a"]), None),  # 3 of 11 lines
        ("\n".join([*UNIQUE[:6], "a", "a", "a", "a"]), None),  # 3 of 10 is not above 0.3
        ("\n".join([*UNIQUE[:5], "a", "a", "a", "a"]), "too many duplicate lines"),
        ("\n".join([*UNIQUE[:4], UNIQUE[0], UNIQUE[1]]), "too many duplicate lines"),  # characters
        ("x\n\n" + "\n\n".join(["p", "q"] * 4), "too many duplicate lines"),
        (" ".join(UNIQUE[:8] + ["of", "the"] * 4), "one 2-gram makes up more than 20%"),
        (" ".join(UNIQUE[:95] + UNIQUE[:10]), None),  # 10 of 105 words
        (" ".join(UNIQUE[:50] + UNIQUE[:10]), "duplicate 5-grams make up more than 15%"),
        (" ".join(UNIQUE[:77] + UNIQUE[:10]), "duplicate 9-grams make up more than 11%"),
    ],
)
def test_rules(text: str, reason: str | None) -> None:
    assert GopherRepetition()({"text": text}) == reason


def test_the_answers_are_read() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "no no no no no no no no"},
            {"role": "assistant", "content": " ".join(UNIQUE)},
        ]
    }
    assert GopherRepetition()(row) is None
    assert GopherRepetition(fields="prompt")(row) == "one 2-gram makes up more than 20%"
