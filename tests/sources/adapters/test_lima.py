"""Lists of texts whose speakers alternate."""

from __future__ import annotations

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.lima import LIMA


def test_speakers_alternate() -> None:
    row = to_row("conversation", LIMA()({"conversations": ["a", "b", "c", "d"]})[0])
    said = [(m["role"][0], m["content"]) for m in row["messages"]]
    assert said == [("u", "a"), ("a", "b"), ("u", "c"), ("a", "d")]


def test_no_turns() -> None:
    with pytest.raises(DataError, match="needs a list in `conversations`"):
        LIMA()({"conversations": []})
