"""Which rows are drawn: exact shares, whole passes, budgets, mixings."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import DataError, RecipeError
from posttrain.mixture.draw import (
    Proportional,
    Temperature,
    apportion,
    counts_of,
    get_mixing,
    hold_out,
    passes,
    shuffle,
    up_to,
)
from posttrain.recipe import Source

shares = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=8)


@given(shares, st.integers(0, 10_000))
def test_apportioned_rows_are_exact_to_one_row(weights: list[float], total: int) -> None:
    counts = apportion(weights, total)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6


def test_largest_remainders_by_hand() -> None:
    # 10 rows over 1 : 1 : 1 are 3.33 each; the row that is left goes to the first
    assert apportion([1, 1, 1], 10) == [4, 3, 3]
    # 7 over 5 : 3 : 2 are 3.5, 2.1, 1.4
    assert apportion([5, 3, 2], 7) == [4, 2, 1]


def test_examples_proportional_with_a_cap() -> None:
    """FLAN's cap of 3,000: sources of 10,000, 3,000 and 500 rows count as 3,000, 3,000 and 500."""
    sizes = [10_000, 3_000, 500]
    assert counts_of({"name": "proportional", "cap": 3000}, sizes) == [3000, 3000, 500]
    assert counts_of({"name": "proportional", "cap": 3000, "num_samples": 1300}, sizes) == [
        600,
        600,
        100,
    ]
    assert counts_of({"name": "proportional"}, sizes) == sizes


def test_limas_temperature_of_three() -> None:
    """Sizes 1,000, 100, 10 with temperature 3 stand as 10 : 4.64 : 2.15 (LIMA)."""
    sizes = [1000, 100, 10]
    assert np.allclose(Temperature(3).shares(sizes), [10, 4.6416, 2.1544], atol=1e-3)
    assert Temperature(1).shares(sizes) == sizes
    assert counts_of({"name": "temperature", "temperature": 3, "num_samples": 168}, sizes) == [
        100,
        46,
        22,
    ]
    assert sum(counts_of({"name": "temperature"}, sizes)) == 1110


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "proportionate"}, "did you mean 'proportional'"),
        ({"name": "temperature", "temprature": 2}, "did you mean 'temperature'"),
        ({"name": "temperature", "temperature": 0}, "above 0"),
        ({"name": "proportional", "cap": 0}, "cap: 0 is no positive number"),
        ({"name": "proportional", "num_samples": 1.5}, "num_samples: 1.5 is no positive number"),
    ],
)
def test_mixings_that_make_no_sense(spec, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        get_mixing(spec)
    assert isinstance(get_mixing("proportional"), Proportional)


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 5))
def test_passes_use_every_row_equally_often(rows: int, number: int, seed: int) -> None:
    taken = passes(np.arange(rows) * 10, number, random.Random(seed))
    times = Counter(taken.tolist())
    assert len(taken) == number and set(times) <= set(range(0, 10 * rows, 10))
    counts = [times[row] for row in range(0, 10 * rows, 10)]
    assert max(counts) - min(counts) <= 1


@given(st.integers(2, 60), st.floats(0.01, 0.5), st.integers(0, 5))
def test_held_out_rows_are_never_trained_on(rows: int, fraction: float, seed: int) -> None:
    every = np.arange(rows)
    train, held = hold_out(every, fraction, random.Random(seed))
    assert sorted([*train, *held]) == every.tolist()
    assert len(held) == max(1, round(fraction * rows)) and len(train)
    again = hold_out(every, fraction, random.Random(seed))
    assert again[1].tolist() == held.tolist()


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(DataError, match="cannot be split"):
        hold_out(np.arange(1), 0.5, random.Random(0))


def test_a_budget_is_reached_by_the_last_row() -> None:
    rows, lengths = np.array([4, 7, 9]), np.array([3, 3, 3])
    source = Source(path="a", weight=1.0)
    taken = up_to(rows, lengths, 10, random.Random(0), source)
    assert len(taken) == 4  # 3, 6, 9, 12: a second pass begins
    assert sorted(taken[:3]) == [4, 7, 9]
    assert len(up_to(rows, lengths, 9, random.Random(0), source)) == 3
    with pytest.raises(DataError, match="no row has a token"):
        up_to(rows, np.zeros(3, np.int64), 9, random.Random(0), source)


@given(st.integers(0, 300), st.integers(0, 5))
def test_a_shuffle_is_that_of_a_list(number: int, seed: int) -> None:
    plain = list(range(number))
    random.Random(seed).shuffle(plain)
    assert shuffle(number, random.Random(seed)).tolist() == plain
