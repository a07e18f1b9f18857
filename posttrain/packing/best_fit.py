"""Best-fit decreasing over a whole data set: rows -> bins of at most so many tokens.

The plain algorithm (Johnson 1973, "Near-optimal bin packing algorithms"; for language models
Ding et al. 2024, arXiv:2404.10830) takes the rows from the longest to the shortest and puts each
where the least room is left that still holds it. Lengths are whole numbers up to the capacity, so
there are few distinct ones: all rows of one length are placed at once, and bins that have had
the same history are one interval of bin numbers. The work is over pairs (length, room left); only
writing down the answer is over rows, and numpy does it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posttrain.errors import DataError

AT_ONCE = 2**16  # rows written down at a time
Interval = tuple[int, int, int]  # first bin, number of bins, rows in each


@dataclass(frozen=True)
class Bins:
    """Rows by bin: bin `b` holds rows `order[starts[b] : starts[b + 1]]`, the longest first.

    Attributes:
        order: `[N]` int64, every row once.
        starts: `[B + 1]` int64.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        """The rows of one bin."""
        return self.order[self.starts[index] : self.starts[index + 1]]

    def fill(self, lengths: NDArray[np.int64], capacity: int) -> float:
        """Share of the bins' room that is taken, 0 to 1."""
        return float(lengths.sum()) / (len(self) * capacity) if len(self) else 1.0


def best_fit(lengths: Sequence[int] | NDArray[np.int64], capacity: int) -> Bins:
    """Pack rows into bins, best-fit decreasing; the same lengths always give the same bins.

    Args:
        lengths: `[N]` tokens of each row.
        capacity: tokens that a bin may hold.

    Raises:
        DataError: a row is longer than `capacity`, or has no token.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if not len(lengths):
        return Bins(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
    check_lengths(lengths, capacity)
    counts = np.bincount(lengths)
    distinct = np.flatnonzero(counts)[::-1]
    moves, num_bins = place(distinct.tolist(), counts[distinct].tolist(), capacity)
    # short keys are sorted by radix, several times as fast
    key = (capacity - lengths).astype(np.uint16 if capacity < 2**16 else np.int64)
    by_length = np.argsort(key, kind="stable")
    return write_down(moves, num_bins, by_length)


def check_lengths(lengths: NDArray[np.int64], capacity: int) -> None:
    """Refuse rows that fit nowhere."""
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())
    if lengths[longest] > capacity:
        raise DataError(
            f"row {longest} has {lengths[longest]} tokens and a bin holds {capacity}; "
            f"shorten it, or let a bin hold at least {lengths[longest]}"
        )
    if lengths[shortest] < 1:
        raise DataError(f"row {shortest} has no token; remove it")


def place(
    distinct: Sequence[int], counts: Sequence[int], capacity: int
) -> tuple[NDArray[np.int64], int]:
    """Place all rows of each length, the longest first.

    Returns:
        Moves `[M, 4]` (first bin, number of bins, rows in each before, rows that each is given),
        in the order of the rows; and the number of bins.
    """
    moves = array("q")  # flat: tuples would have the garbage collector walk the whole heap
    room: defaultdict[int, list[Interval]] = defaultdict(list)  # by tokens left
    some = 0  # bit r is set where room[r] is not empty: the best fit is its lowest bit >= length
    num_bins = 0

    def put(first: int, num: int, rows: int, left: int, given: int, length: int) -> None:
        nonlocal some
        moves.extend((first, num, rows, given))
        left -= given * length
        if left:
            room[left].append((first, num, rows + given))
            some |= 1 << left

    for length, todo in zip(distinct, counts, strict=True):
        while todo:
            fitting = some >> length
            if fitting:
                left = length + (fitting & -fitting).bit_length() - 1
                first, num, rows = room[left].pop()
                each = left // length  # the bin stays the best fit until no more goes in
            else:
                left, each = capacity, capacity // length
                first, rows, num = num_bins, 0, -(-todo // each)
                num_bins += num
            whole = min(num, todo // each)
            part = todo - whole * each if whole < num else 0
            todo -= whole * each + part
            if whole:
                put(first, whole, rows, left, each, length)
            if part:
                put(first + whole, 1, rows, left, part, length)
            untouched = num - whole - bool(part)
            if untouched:
                room[left].append((first + whole + bool(part), untouched, rows))
            if fitting and not room[left]:
                some &= ~(1 << left)
    return np.frombuffer(moves, dtype=np.int64).reshape(-1, 4), num_bins


def write_down(moves: NDArray[np.int64], num_bins: int, by_length: NDArray[np.int64]) -> Bins:
    """Moves of intervals -> the rows of every bin, some moves at a time to hold little memory."""
    first, num, before, given = moves.T
    change = np.zeros(num_bins + 1, dtype=np.int64)  # rows per bin, as differences of neighbours
    np.add.at(change, first, given)
    np.add.at(change, first + num, -given)
    starts = np.zeros(num_bins + 1, dtype=np.int64)
    np.cumsum(np.cumsum(change[:-1]), out=starts[1:])
    order = np.empty(len(by_length), dtype=np.int64)
    ends = np.cumsum(num * given)
    cuts = dict.fromkeys(np.searchsorted(ends, np.arange(0, len(by_length), AT_ONCE)).tolist())
    for a, b in pairwise([*cuts, len(moves)]):
        size = (num * given)[a:b]
        begin, end = int(ends[a] - size[0]), int(ends[b - 1])
        within = np.arange(begin, end) - np.repeat(ends[a:b] - size, size)
        each = np.repeat(given[a:b], size)
        home = np.repeat(first[a:b], size) + within // each
        order[starts[home] + np.repeat(before[a:b], size) + within % each] = by_length[begin:end]
    return Bins(order, starts)
