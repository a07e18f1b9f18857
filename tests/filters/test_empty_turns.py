"""A turn that says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.empty_turns import EmptyTurns


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"messages": [turn("user", "Hi"), turn("assistant", "Hello")]}, True),
        ({"messages": [turn("user", " \n"), turn("assistant", "Hello")]}, False),
        ({"messages": [turn("system", ""), turn("assistant", "Hello")]}, False),
        ({"messages": [turn("user", "Hi"), turn("assistant", "", tool_calls=[{"id": 1}])]}, True),
        ({"messages": [turn("user", "Hi"), turn("assistant", "", tool_calls=[])]}, False),
        ({"messages": [turn("assistant", "Hello")], "tools": [{"name": "f"}]}, True),
        ({"prompt": [turn("user", "Hi")], "chosen": [turn("assistant", "")]}, False),
        ({"prompt": [turn("user", "Hi")], "ground_truth": "", "verifier": "gsm8k"}, True),
        ({"text": "", "source": ""}, True),
    ],
)
def test_empty_turns(row: dict[str, Any], kept: bool) -> None:
    row = {"rejected": None, **row} if "chosen" not in row else {**row, "rejected": []}
    assert EmptyTurns()(row) == (None if kept else "a turn is empty")
