"""Groups of a whole file, whatever the order of its rows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.filters.dedup import Groups, dedup_file, duplicate_groups
from posttrain.filters.minhash import jaccard, shingles


def plain_groups(texts: list[str], threshold: float, words: int) -> set[frozenset[int]]:
    """All pairs compared, components by walking."""
    sets = [shingles(text, words) for text in texts]
    near = {
        i: [
            j
            for j in range(len(texts))
            if len(sets[i]) and len(sets[j]) and jaccard(sets[i], sets[j]) >= threshold
        ]
        for i in range(len(texts))
    }
    found = set()
    for i in near:
        group, todo = set(), [i]
        while todo:
            member = todo.pop()
            if member not in group:
                group.add(member)
                todo += near[member]
        if len(group) > 1:
            found.add(frozenset(group))
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc ", min_size=0, max_size=14), max_size=12), st.randoms())
def test_groups_equal_all_pairs_in_any_order(texts: list[str], rng: random.Random) -> None:
    texts = [" ".join(text) for text in texts]
    expected = plain_groups(texts, 0.7, 2)
    assert {frozenset(g) for g in duplicate_groups(texts, 0.7, words=2)} == expected
    order = list(range(len(texts)))
    rng.shuffle(order)
    shuffled = duplicate_groups([texts[i] for i in order], 0.7, words=2)
    assert {frozenset(order[i] for i in group) for group in shuffled} == expected


def test_a_chain_holds_together() -> None:
    # ten words in a row each; neighbours share nine of eleven, the ends seven of thirteen
    words = [f"w{i}" for i in range(13)]
    texts = [" ".join(words[i : i + 10]) for i in (0, 1, 2, 3)]
    assert jaccard(shingles(texts[0], 1), shingles(texts[3], 1)) == pytest.approx(7 / 13)
    assert duplicate_groups(texts, 0.8, words=1) == [[0, 1, 2, 3]]
    assert duplicate_groups(texts, 0.9, words=1) == []


def test_dedup_near_and_exact() -> None:
    long = "the quick brown fox jumps over the lazy dog and then goes home to sleep until morning"
    rows = [
        {"text": "something else", "source": "a"},
        {"text": long, "source": "a"},
        {"text": f"{long} comes", "source": "a"},
        {"text": "something else", "source": "b"},
        {"text": long, "source": "c"},
    ]
    assert dedup_file(iter(rows)) == ([0, 1], [[0, 3], [1, 2, 4]])
    assert dedup_file(iter(rows), mode="exact") == ([0, 1, 2], [[0, 3], [1, 4]])
    assert dedup_file(iter(rows), threshold=1.0) == ([0, 1, 2], [[0, 3], [1, 4]])
    assert dedup_file([]) == ([], [])


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="`mode` must be one of near, exact, got 'fuzzy'"):
        dedup_file([], mode="fuzzy")
    with pytest.raises(ValueError, match="`threshold` must be above 0 and at most 1"):
        dedup_file([], threshold=1.5)


def test_union_find() -> None:
    groups = Groups(6)
    for i, j in ((4, 2), (5, 4), (0, 1), (2, 5)):
        groups.join(i, j)
    assert groups.members() == [[0, 1], [2, 4, 5]]
    assert groups.root(5) == 2
