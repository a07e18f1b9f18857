"""Best-fit packing: hand-worked bins, a plain reference, and the promises it makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.packing import best_fit


def plain_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing as it is told: the longest first, to where the least room is left."""
    bins: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [b for b in bins if sum(b) + length <= capacity]
        if not fitting:
            bins.append([length])
        else:
            max(fitting, key=sum).append(length)
    return bins


def first_fit(lengths: list[int], capacity: int) -> int:
    """Bins that first-fit decreasing needs."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        seat = next((i for i, left in enumerate(room) if left >= length), None)
        if seat is None:
            room.append(capacity - length)
        else:
            room[seat] -= length
    return len(room)


def like_tulu(num: int, seed: int = 0) -> np.ndarray:
    """Lengths of mean 700 with a long tail, cut at 4,096."""
    draw = np.random.default_rng(seed).lognormal(np.log(700) - 0.5, 1.0, num)
    return np.clip(draw, 8, 4096).astype(np.int64)


def test_bins_by_hand() -> None:
    # 7 opens a bin, 6 another; 4 fits the second exactly; the 3s: one fills the first, then 3 + 1
    bins = best_fit([3, 7, 1, 4, 6, 3], capacity=10)
    assert [bins[i].tolist() for i in range(len(bins))] == [[1, 0], [4, 3], [5, 2]]
    assert bins.starts.tolist() == [0, 2, 4, 6]
    assert bins.fill(np.array([3, 7, 1, 4, 6, 3]), 10) == pytest.approx(24 / 30)


def test_many_rows_of_one_length_fill_bins_whole() -> None:
    bins = best_fit([3] * 8, capacity=10)
    assert [bins[i].tolist() for i in range(len(bins))] == [[0, 1, 2], [3, 4, 5], [6, 7]]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 40).flatmap(
        lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))
    )
)
def test_it_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    bins = best_fit(lengths, capacity)
    assert sorted(bins.order.tolist()) == list(range(len(lengths)))
    found = [[lengths[row] for row in bins[i].tolist()] for i in range(len(bins))]
    assert all(found)
    assert all(sum(b) <= capacity for b in found)
    assert all(b == sorted(b, reverse=True) for b in found)
    # which of two bins with the same room left takes a row is open, but not how full bins become
    plain = plain_best_fit(lengths, capacity)
    assert sorted(map(sum, found)) == sorted(map(sum, plain))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_no_worse_than_first_fit(seed: int) -> None:
    lengths = like_tulu(1500, seed)
    assert len(best_fit(lengths, 4096)) <= first_fit(lengths.tolist(), 4096) + 1


def test_a_whole_mixture_is_full_to_99_percent() -> None:
    lengths = like_tulu(200_000)
    bins = best_fit(lengths, 4096)
    assert bins.fill(lengths, 4096) > 0.999
    assert np.array_equal(np.sort(bins.order), np.arange(len(lengths)))
    assert np.add.reduceat(lengths[bins.order], bins.starts[:-1]).max() <= 4096
    again = best_fit(lengths.copy(), 4096)
    assert np.array_equal(bins.order, again.order)
    assert np.array_equal(bins.starts, again.starts)


def test_capacities_above_16_bits_sort_as_well() -> None:
    bins = best_fit([1, 100_000, 131_071], capacity=131_072)
    assert [bins[i].tolist() for i in range(len(bins))] == [[2, 0], [1]]


def test_no_rows_are_no_bins() -> None:
    bins = best_fit([], 10)
    assert (len(bins), bins.order.tolist(), bins.starts.tolist()) == (0, [], [0])


def test_rows_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(DataError, match="row 1 has 11 tokens and a bin holds 10"):
        best_fit([3, 11], 10)
    with pytest.raises(DataError, match="row 2 has no token"):
        best_fit([3, 1, 0], 10)
