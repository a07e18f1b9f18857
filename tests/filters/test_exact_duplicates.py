"""Rows that say exactly what an earlier one said."""

from __future__ import annotations

from posttrain.filters.exact_duplicates import ExactDuplicates


def test_the_first_of_equal_rows_is_kept() -> None:
    keep = ExactDuplicates()
    rows = [
        {"text": "a", "source": "one"},
        {"text": "b", "source": "one"},
        {"text": "a", "source": "two"},  # the source is no part of what it says
        {"text": "a ", "source": "one"},
        {"text": "a", "source": "one"},
    ]
    assert [keep(row) is None for row in rows] == [True, True, False, True, False]


def test_the_order_of_keys_does_not_matter() -> None:
    keep = ExactDuplicates()
    assert keep({"a": "1", "b": "2"}) is None
    assert keep({"b": "2", "a": "1"}) == "an earlier row is the same"


def test_a_fresh_filter_remembers_nothing() -> None:
    assert ExactDuplicates()({"text": "a"}) is None
    assert ExactDuplicates()({"text": "a"}) is None
