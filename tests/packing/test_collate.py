"""Tokenised rows as batches, their lengths, and the packs they go into."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from posttrain.errors import DataError
from posttrain.packing import Collator, Rows, pack_rows, row_lengths

X = -100
SFT = [{"input_ids": [1] * n, "labels": [1] * n, "source": "a"} for n in (3, 7, 1, 4, 6, 3)]
PAIRS = [
    {"prompt_ids": [1] * p, "chosen_ids": [2] * c, "rejected_ids": [3] * r}
    for p, c, r in ((2, 3, 4), (5, 5, 5), (1, 1, 1))
]


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


def test_rows_know_their_index_and_empty_seats() -> None:
    rows = Rows([{"a": 1}, {"a": 2}])
    assert len(rows) == 2
    assert rows[1] == {"a": 2, "index": 1}
    assert rows[-1] is None


@pytest.mark.parametrize("kind", [list, Dataset.from_list])
def test_a_row_is_as_long_as_it_is_laid_out(kind: Any) -> None:
    assert row_lengths(kind(SFT)).tolist() == [3, 7, 1, 4, 6, 3]
    assert row_lengths(kind(PAIRS)).tolist() == [9, 15, 3]
    for rows in (SFT, PAIRS):
        batch = Collator({})([{**row, "index": i} for i, row in enumerate(rows)])
        assert batch["input_ids"].shape[1] == row_lengths(kind(rows)).sum()
    problems = [{"prompt_ids": [1, 2], "prompt": "x"}, {"prompt_ids": [1], "prompt": "y"}]
    assert row_lengths(kind(problems)).tolist() == [2, 1]


def test_lengths_follow_a_selection() -> None:
    rows = Dataset.from_list(SFT).select([5, 1, 1])
    assert row_lengths(rows).tolist() == [3, 7, 7]


def test_a_pack_holds_max_length_and_of_pairs_twice_that() -> None:
    bins = pack_rows(Dataset.from_list(SFT), max_length=10)
    assert [bins[i].tolist() for i in range(len(bins))] == [[1, 0], [4, 3], [5, 2]]
    bins = pack_rows(PAIRS, max_length=10)  # 20 tokens: 15 + 3, then 9
    assert [bins[i].tolist() for i in range(len(bins))] == [[1, 2], [0]]


def test_a_row_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 1 has 7 tokens.*set max_length to at least 7"):
        pack_rows(SFT, max_length=6)
    with pytest.raises(DataError, match=r"row 1 has 15 tokens.*holds 14; .* at least 8"):
        pack_rows(PAIRS, max_length=7)


def test_rows_are_read_one_by_one_or_as_lists() -> None:
    rows = Rows([{"a": 1}, {"a": 2}])
    assert rows[[1, -1]] == [{"a": 2, "index": 1}, None]
