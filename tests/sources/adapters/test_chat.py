"""Rows in our own shapes pass untouched; `where` picks a part of a mixture."""

from __future__ import annotations

import pytest

from posttrain.errors import DataError
from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.chat import Chat


def test_rows_pass_untouched() -> None:
    raw = {"messages": [{"role": "user", "content": "a"}], "id": 3}
    assert Chat()(raw) == [raw]


def test_a_part_of_a_mixture() -> None:
    part = Chat(where={"dataset": ["cot", "flan_v2"], "ok": True})
    assert part({"dataset": "cot", "ok": True}) == [{"dataset": "cot", "ok": True}]
    for raw in ({"dataset": "lima", "ok": True}, {"dataset": "cot"}, {"dataset": ["cot"]}):
        with pytest.raises(LeftOut, match="not as asked for"):
            part(raw)


def test_a_row_is_an_object() -> None:
    with pytest.raises(DataError, match="must be an object"):
        Chat()(["a"])
