"""Which rows an optimizer step is about, and how they are dealt over processes and micro-batches.

The rows of a step depend on the seed and the epoch alone. How they are cut is a matter of the
machine: by count (`GlobalBatches`) or by tokens (`TokenBatches`). Losses are sums over items that
are divided by the items of the whole step, so the gradient is the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from posttrain.errors import DataError
from posttrain.packing.best_fit import Bins, best_fit


class Steps(Sampler[Any]):
    """The rows of each optimizer step, the same on any machine.

    Args:
        num_rows: rows in the data set.
        batch_size: rows per optimizer step over all processes; packs of rows, if there are `bins`.
        rank, world: this process and how many there are.
        seed: the order depends on it and on the epoch, on nothing else.
        shuffle: off, rows (or packs) come in the order of the data set.
        bins: packs, which stay as they are while their order changes from epoch to epoch.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        rank: int,
        world: int,
        seed: int,
        shuffle: bool = True,
        bins: Bins | None = None,
    ) -> None:
        self.num_items = num_rows if bins is None else len(bins)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.seed, self.shuffle, self.bins = seed, shuffle, bins
        self.epoch = 0
        self.batch_sampler = self  # transformers' Trainer looks for `set_epoch` under this name

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_items // self.batch_size)

    def steps(self) -> Iterator[list[int]]:
        """The items (rows or packs) of each step of this epoch."""
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.num_items, generator=generator)
        else:
            order = torch.arange(self.num_items)
        for start in range(0, self.num_items, self.batch_size):
            yield order[start : start + self.batch_size].tolist()

    def rows(self, items: Sequence[int]) -> list[int]:
        """The rows of some items; `-1`, which is no item, stays."""
        if self.bins is None:
            return list(items)
        return [row for i in items for row in (self.bins[i].tolist() if i >= 0 else [-1])]


class GlobalBatches(Steps):
    """Micro-batches of equally many rows (or packs); `-1` fills up the last, partial batch.

    Args:
        micro_batch: rows (or packs) per process and forward pass.
        others: see `Steps`.

    Raises:
        DataError: `batch_size` cannot be dealt out evenly.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        micro_batch: int,
        rank: int,
        world: int,
        seed: int,
        shuffle: bool = True,
        bins: Bins | None = None,
    ) -> None:
        if batch_size % (micro_batch * world):
            raise DataError(
                f"batch_size {batch_size} is not divisible by {micro_batch} x {world} processes"
            )
        super().__init__(num_rows, batch_size, rank, world, seed, shuffle, bins)
        self.accumulation = batch_size // (micro_batch * world)

    def __len__(self) -> int:
        return super().__len__() * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        slots = self.accumulation * self.world
        for items in self.steps():
            items += [-1] * (self.batch_size - len(items))
            for slot in range(self.rank, slots, self.world):
                # dealt like cards: a partial batch stays balanced
                yield self.rows(items[slot::slots])


class TokenBatches(Steps):
    """Micro-batches of at most so many tokens: one list of them per optimizer step.

    Every process has equally many in a step, which differ in number from step to step, and their
    tokens differ little between the processes. The largest ones come first.
    The rows of a step's packs are split anew: to keep packs whole would cost the balance between
    the processes, and mix long and short sequences, which attention pads to the longest.

    Args:
        lengths: `[N]` tokens of each row.
        max_tokens: tokens per process and forward pass.
        others: see `Steps`.

    Raises:
        DataError: a row is longer than `max_tokens`.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        batch_size: int,
        max_tokens: int,
        rank: int,
        world: int,
        seed: int,
        shuffle: bool = True,
        bins: Bins | None = None,
    ) -> None:
        check_budget(int(lengths.max(initial=0)), max_tokens)
        super().__init__(len(lengths), batch_size, rank, world, seed, shuffle, bins)
        self.lengths, self.max_tokens = lengths, max_tokens

    def __iter__(self) -> Iterator[list[list[int]]]:
        for items in self.steps():
            rows = self.rows(items)
            parts = split_by_tokens(self.lengths[rows], self.max_tokens, self.world)
            mine = []
            for start in range(0, len(parts), self.world):
                turn = start // self.world % 2  # to and fro, so that no process is always first
                seat = self.world - 1 - self.rank if turn else self.rank
                mine.append([rows[i] for i in parts[start + seat]] or [-1])
            yield mine


def check_budget(longest: int, max_tokens: int, what: str = "row") -> None:
    """Refuse a budget that the longest row is above.

    Raises:
        DataError: naming the least budget.
    """
    if longest > max_tokens:
        raise DataError(
            f"max_tokens_per_device is {max_tokens}, but the longest {what} has {longest} tokens; "
            f"set max_tokens_per_device to at least {longest}, or allow only shorter ones"
        )


def split_by_tokens(
    lengths: Sequence[int] | NDArray[np.int64],
    max_tokens: int,
    multiple: int = 1,
    at_least: int = 1,
) -> list[list[int]]:
    """Split the rows of a step into micro-batches, as few as best-fit finds and then as even.

    The number is settled first; then the budget is lowered for as long as best-fit needs no more
    of them (MULTIFIT: Coffman, Garey and Johnson 1978, "An application of bin-packing to
    multiprocessor scheduling"), to within 2% of where it cannot be lowered any more.

    Args:
        lengths: tokens of each row.
        max_tokens: tokens per micro-batch.
        multiple: the number of micro-batches is a multiple of this.
        at_least: the least number of micro-batches.

    Returns:
        Positions in `lengths` per micro-batch, the one with most tokens first; some may be empty.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    best = best_fit(lengths, max_tokens)
    num = -(-max(len(best), at_least) // multiple) * multiple
    low = max(int(lengths.max(initial=1)), -(-int(lengths.sum()) // num))
    high = max_tokens
    while high - low > low // 50:
        middle = (low + high) // 2
        tried = best_fit(lengths, middle)
        if len(tried) <= num:
            best, high = tried, middle
        else:
            low = middle + 1
    parts = [best[i].tolist() for i in range(len(best))]
    parts.sort(key=lambda part: -int(lengths[part].sum()))
    return parts + [[] for _ in range(num - len(parts))]
