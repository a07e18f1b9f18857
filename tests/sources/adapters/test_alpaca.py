"""Alpaca's columns, with history, system text and preferences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.alpaca import Alpaca

RAW = {"instruction": "Add.", "input": "2, 2", "output": "4"}


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_instruction_and_input() -> None:
    assert Alpaca()(RAW) == [{"prompt": [user("Add.\n\n2, 2")], "completion": "4"}]
    assert Alpaca()(RAW | {"input": ""})[0]["prompt"] == [user("Add.")]
    assert Alpaca()({"instruction": "Add.", "response": "4"})[0]["completion"] == "4"


def test_system_and_history_come_first() -> None:
    (row,) = Alpaca()(RAW | {"system": "Be brief.", "history": [["Hi", "Hello"]]})
    assert [(m["role"], m["content"]) for m in row["prompt"]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Add.\n\n2, 2"),
    ]


@pytest.mark.parametrize("history", ["Hi", [["Hi"]], [["Hi", 3]], {"a": 1}])
def test_a_wrong_history(history: Any) -> None:
    with pytest.raises(DataError, match="`history` must be a list of pairs"):
        Alpaca()(RAW | {"history": history})


def test_preferences(shared_rows: Callable[..., Any]) -> None:
    raw = shared_rows("llms_from_scratch/instruction-data-with-preference.jsonl.gz")[0]
    row = to_row("preference", Alpaca()(raw)[0])
    assert row["prompt"] == [user(f"{raw['instruction']}\n\n{raw['input']}")]
    assert row["chosen"][0]["content"] == raw["chosen"]
