"""The compact table against a plain dict of lists."""

from __future__ import annotations

import random
import sys
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from posttrain.filters.hash_table import HashTable

KEYS = st.one_of(st.integers(0, 3), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(st.tuples(KEYS, st.integers(0, 2**32 - 1)), max_size=60))
def test_it_finds_what_was_added(pairs: list[tuple[int, int]]) -> None:
    table, plain = HashTable(), defaultdict(list)
    for key, value in pairs:
        table.add(key, value)
        plain[key or 1].append(value)  # 0 and 1 share a place
    assert len(table) == len(pairs)
    for key in [*plain, 12345]:
        assert sorted(table.find(key)) == sorted(plain.get(key, []))


def test_it_grows_and_stays_small() -> None:
    rng, table = random.Random(0), HashTable()
    keys = [rng.getrandbits(64) for _ in range(50_000)]
    for i, key in enumerate(keys):
        table.add(key, i)
    assert all(table.find(key) == [i] for i, key in enumerate(keys))
    assert not any(table.find(rng.getrandbits(64)) for _ in range(1000))
    size = sys.getsizeof(table._keys) + sys.getsizeof(table._values)
    assert 16 <= size / len(keys) <= 32
