"""The packed layout, field by field, and global batches that do not depend on the machine."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import DataError
from posttrain.packing import Collator, GlobalBatches, Group, Rows, pack

X = -100


def test_the_layout_of_a_shared_prompt_and_a_row_alone() -> None:
    batch = pack(
        [
            Group([5, 6], [([7, 8], [7, 8]), ([9], [9])], source=1),
            Group([], [([3, 4, 5], [3, X, 5])], source=0),
        ]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 3, 4, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 2]]
    assert batch["packed_rows"].tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [5, 6, 7, 0]]
    assert batch["packed_back"].tolist() == [0, 1, 2, 3, 6, 8, 9, 10]
    assert batch["keep"].tolist() == [1, 2, 1, 6]  # the last prompt token predicts both answers
    # a first token without a prompt is not predicted
    assert batch["targets"].tolist() == [7, 8, 9, 5]
    assert batch["segment"].tolist() == [0, 0, 1, 2]
    assert batch["tokens"].tolist() == [2, 1, 1]
    assert batch["source"].tolist() == [1, 1, 0]
    assert batch["last"].tolist() == [3, 4, 7]


def test_gathering_and_putting_back_gives_every_token_its_place() -> None:
    batch = pack([Group([5, 6], [([7, 8, 9], [X] * 3), ([4], [4])]), Group([], [([1], [1])])])
    flat = batch["input_ids"][0][batch["packed_rows"].reshape(-1)]
    assert flat[batch["packed_back"]].tolist() == batch["input_ids"][0].tolist()


def test_the_collator_reads_both_kinds_of_rows() -> None:
    collate = Collator({"a": 0, "b": 1})
    sft = {"input_ids": [2, 3], "labels": [X, 3], "source": "b", "index": 4}
    pair = {"prompt_ids": [2], "chosen_ids": [3, 1], "rejected_ids": [4], "source": "a", "index": 7}
    batch = collate([sft, None])
    assert (batch["targets"].tolist(), batch["source"].tolist()) == ([3], [1])
    assert batch["index"].tolist() == [4]
    batch = collate([None, pair])
    assert batch["targets"].tolist() == [3, 1, 4]
    assert batch["tokens"].tolist() == [2, 1]
    assert batch["index"].tolist() == [7]


def test_a_micro_batch_without_rows_can_still_be_run() -> None:
    batch = Collator({"a": 0})([None, None])
    assert batch["keep"].tolist() == batch["index"].tolist() == []
    assert batch["input_ids"].shape[1] == len(batch["packed_back"]) > 0


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


def test_rows_know_their_index_and_empty_seats() -> None:
    rows = Rows([{"a": 1}, {"a": 2}])
    assert len(rows) == 2
    assert rows[1] == {"a": 2, "index": 1}
    assert rows[-1] is None
