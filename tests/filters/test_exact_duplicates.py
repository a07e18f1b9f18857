"""Rows that say exactly what an earlier one said."""

from __future__ import annotations

import random
from typing import Any

from posttrain.filters.exact_duplicates import ExactDuplicates

SAME = "an earlier row is the same"


def test_the_first_of_equal_rows_is_kept() -> None:
    keep = ExactDuplicates()
    rows = [
        {"text": "a", "source": "one"},
        {"text": "b", "source": "one"},
        {"text": "a", "source": "two", "id": "7"},  # where it came from is not what it says
        {"text": "a ", "source": "one"},
        {"text": "a", "source": "one"},
    ]
    assert [keep(row) is None for row in rows] == [True, True, False, True, False]


def test_everything_but_the_provenance_counts() -> None:
    keep = ExactDuplicates()
    row: dict[str, Any] = {"prompt": [{"role": "user", "content": "1+1?"}], "ground_truth": "2"}
    assert keep(row) is None
    assert keep({**row, "ground_truth": "3"}) is None
    assert keep({**row, "tools": [{"name": "sum"}]}) is None
    assert keep({**row, "prompt": [{"role": "user", "content": "1+1?", "train": False}]}) is None
    assert keep({**row, "uuid": "x", "metadata": {"k": 1}}) == SAME


def test_the_order_of_keys_does_not_matter() -> None:
    keep = ExactDuplicates()
    assert keep({"a": "1", "b": "2"}) is None
    assert keep({"b": "2", "a": "1"}) == SAME


def test_a_fresh_filter_remembers_nothing() -> None:
    assert ExactDuplicates()({"text": "a"}) is None
    assert ExactDuplicates()({"text": "a"}) is None


def test_marks_are_sixteen_bytes_and_judged_as_a_set_would() -> None:
    rng, keep, seen = random.Random(0), ExactDuplicates(), set()
    for number in (rng.randrange(3000) for _ in range(5000)):
        mark = keep.mark({"text": str(number), "source": str(rng.random())})
        assert len(mark) == 16
        assert (keep.judge(mark) == SAME) == (number in seen)
        seen.add(number)
