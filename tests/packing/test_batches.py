"""Global batches that do not depend on the machine, cut by count or by tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.packing import GlobalBatches, TokenBatches, best_fit, check_budget, split_by_tokens


def steps(
    num_rows: int, batch: int, micro: int, world: int, seed: int = 3, epoch: int = 0
) -> list[list[int]]:
    """The rows of each optimizer step, all processes together."""
    samplers = [GlobalBatches(num_rows, batch, micro, rank, world, seed) for rank in range(world)]
    streams = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        streams.append(list(sampler))
        assert len(streams[-1]) == len(sampler)
        assert all(len(rows) == micro for rows in streams[-1])
    per = batch // (micro * world)
    return [
        sorted(i for stream in streams for rows in stream[s : s + per] for i in rows)
        for s in range(0, len(streams[0]), per)
    ]


def test_the_global_batch_is_the_same_on_any_machine() -> None:
    expected = steps(20, 8, 8, 1)
    assert len(expected) == 3
    assert expected[-1].count(-1) == 4  # 20 = 8 + 8 + 4: four seats stay empty
    seen = [i for step in expected for i in step if i >= 0]
    assert sorted(seen) == list(range(20))
    for world in (1, 2, 4):
        for micro in (1, 2, 4, 8):
            if micro * world <= 8:
                assert steps(20, 8, micro, world) == expected, (world, micro)


def test_a_partial_batch_is_dealt_out_evenly() -> None:
    last = [list(GlobalBatches(6, 4, 1, rank, 2, 3))[2:] for rank in range(2)]
    real = [[i for rows in batches for i in rows if i >= 0] for batches in last]
    assert [len(rows) for rows in real] == [1, 1]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    torch.manual_seed(0)
    first = steps(20, 4, 2, 1)
    torch.manual_seed(1)
    assert steps(20, 4, 2, 1) == first
    assert steps(20, 4, 2, 1, seed=4) != first
    second = steps(20, 4, 2, 1, epoch=1)
    assert second != first
    assert steps(20, 4, 4, 1, epoch=1) == second


def test_without_shuffling_rows_come_as_they_stand() -> None:
    sampler = GlobalBatches(5, 2, 2, 0, 1, seed=9, shuffle=False)
    assert list(sampler) == [[0, 1], [2, 3], [4, -1]]


def test_an_indivisible_batch_is_refused() -> None:
    with pytest.raises(DataError, match="batch_size 6 is not divisible by 4 x 1 processes"):
        GlobalBatches(10, 6, 4, 0, 1, 0)


LENGTHS = np.array([5, 9, 2, 2, 7, 1, 3, 8, 6, 4, 10, 1, 2, 5, 9, 3])


def token_steps(world: int, budget: int, **options: object) -> list[list[list[list[int]]]]:
    """Per step and process the micro-batches."""
    streams = [
        list(TokenBatches(LENGTHS, 6, budget, rank, world, 3, **options))  # type: ignore[arg-type]
        for rank in range(world)
    ]
    return [list(step) for step in zip(*streams, strict=True)]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("budget", [10, 17, 1000])
def test_a_budget_cuts_the_same_steps(world: int, budget: int) -> None:
    by_count = steps(len(LENGTHS), 6, 6, 1)
    by_tokens = token_steps(world, budget)
    assert len(by_tokens) == len(TokenBatches(LENGTHS, 6, budget, 0, world, 3)) == 3
    for count, processes in zip(by_count, by_tokens, strict=True):
        rows = sorted(i for mine in processes for micro in mine for i in micro if i >= 0)
        assert rows == [i for i in count if i >= 0]
        assert len({len(mine) for mine in processes}) == 1  # or collectives would not meet
        for mine in processes:
            assert all(micro for micro in mine)
            assert all(sum(LENGTHS[i] for i in micro if i >= 0) <= budget for micro in mine)


def test_a_large_budget_gives_every_process_its_share() -> None:
    for processes in token_steps(2, 1000)[:2]:  # the last step is of 4 rows
        first, second = ([sum(LENGTHS[micro]) for micro in mine] for mine in processes)
        assert len(first) == 1
        assert abs(first[0] - second[0]) <= 3


def test_more_processes_than_rows_get_nothing_but_a_seat() -> None:
    streams = [list(TokenBatches(np.array([4, 4]), 8, 9, rank, 3, 0)) for rank in range(3)]
    assert sorted(tuple(stream[0][0]) for stream in streams) == [(-1,), (0,), (1,)]
    assert [len(stream[0]) for stream in streams] == [1, 1, 1]


def test_a_row_above_the_budget_is_refused() -> None:
    with pytest.raises(DataError, match=r"max_tokens_per_device is 9.* to at least 10"):
        TokenBatches(LENGTHS, 6, 9, 0, 1, 0)
    with pytest.raises(DataError, match="the longest prompt has 10 tokens"):
        check_budget(10, 9, "prompt")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 50), max_size=40),
    st.integers(50, 120),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_a_split_is_within_budget_and_no_larger_than_needed(
    lengths: list[int], budget: int, multiple: int, at_least: int
) -> None:
    parts = split_by_tokens(lengths, budget, multiple, at_least)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in part) for part in parts]
    assert sums == sorted(sums, reverse=True)
    assert max(sums) <= budget
    fewest = max(len(best_fit(lengths, budget)), at_least)
    assert len(parts) == -(-fewest // multiple) * multiple
    assert parts == split_by_tokens(lengths, budget, multiple, at_least)


def test_a_split_is_even() -> None:
    lengths = np.random.default_rng(0).integers(100, 2000, 256)
    sums = [int(lengths[part].sum()) for part in split_by_tokens(lengths, 16_384, multiple=8)]
    assert len(sums) == 24
    assert max(sums) < 1.05 * lengths.sum() / 24


@pytest.mark.parametrize("world", [1, 2])
def test_a_step_of_packs_is_of_their_rows(world: int) -> None:
    bins = best_fit(LENGTHS, 11)
    taken = []
    for epoch in range(2):
        by_count = [GlobalBatches(16, 4, 2, rank, world, 3, bins=bins) for rank in range(world)]
        by_tokens = [
            TokenBatches(LENGTHS, 4, 22, rank, world, 3, bins=bins) for rank in range(world)
        ]
        for sampler in by_count + by_tokens:
            sampler.set_epoch(epoch)
        assert len(by_tokens[0]) == -(-len(bins) // 4)
        per = 2 // world
        assert len(by_count[0]) == len(by_tokens[0]) * per
        streams = [list(sampler) for sampler in by_count]
        counted = [
            sorted(i for s in streams for micro in s[k : k + per] for i in micro if i >= 0)
            for k in range(0, len(streams[0]), per)
        ]
        token_streams = [list(sampler) for sampler in by_tokens]
        budgeted = [
            sorted(i for mine in step for micro in mine for i in micro if i >= 0)
            for step in zip(*token_streams, strict=True)
        ]
        assert counted == budgeted
        assert sorted(i for step in counted for i in step) == list(range(16))
        packs = [set(bins[i].tolist()) for i in range(len(bins))]
        assert all(sum(pack <= set(step) for step in counted) == 1 for pack in packs)
        taken.append(counted)
    assert taken[0] != taken[1]
