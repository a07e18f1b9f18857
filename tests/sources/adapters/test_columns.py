"""Data sets with other column names."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.sources.adapters import get_format
from posttrain.sources.adapters.base import LeftOut


def turns(name: str, raw: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    (row,) = get_format({"name": name, **options})(raw)
    return [(m["role"], m["content"]) for m in row["messages"]]


@pytest.mark.parametrize(
    ("name", "raw", "prompt"),
    [
        ("dolly", {"instruction": "p", "context": "", "response": "a", "category": "qa"}, "p"),
        ("dolly", {"instruction": "p", "context": "c", "response": "a"}, "p\n\nc"),
        ("flan", {"inputs": "p", "targets": "a", "task": "cot"}, "p"),
        ("sciriff", {"input": "p", "output": "a", "metadata": {}}, "p"),
        ("coconot", {"prompt": "p", "response": "a", "category": "c"}, "p"),
        ("table_gpt", {"task": "t", "prompt": "p", "completion": "a"}, "p"),
        ("openmath", {"problem": "p", "generated_solution": "a", "expected_answer": "3"}, "p"),
        ("evol_codealpaca", {"instruction": "p", "output": "a"}, "p"),
        ("columns", {"prompt": "p", "completion": "a"}, "p"),
    ],
)
def test_prompt_and_answer(name: str, raw: dict[str, Any], prompt: str) -> None:
    assert turns(name, raw) == [("user", prompt), ("assistant", "a")]


def test_a_system_column_is_left_out_where_it_is_empty() -> None:
    raw = {"system_prompt": "s", "question": "p", "response": "a"}
    assert turns("open_orca", raw) == [("system", "s"), ("user", "p"), ("assistant", "a")]
    assert turns("open_orca", raw | {"system_prompt": ""})[0] == ("user", "p")


def test_the_rationale_comes_before_the_answer() -> None:
    raw = {"question": "p", "answer": "yes", "rationale": "because"}
    assert turns("flan_cot", raw)[1] == ("assistant", "because\n\nyes")


def test_any_columns() -> None:
    raw = {"q": "p", "hint": "h", "a": 4, "role": "s"}
    found = turns("columns", raw, prompt=["q", "hint"], completion="a", system="role")
    assert found == [("system", "s"), ("user", "p\n\nh"), ("assistant", "4")]


def test_some_rows_only() -> None:
    raw = {"problem": "p", "generated_solution": "a", "problem_source": "math"}
    with pytest.raises(LeftOut):
        turns("openmath", raw, where={"problem_source": ["gsm8k", "augmented_gsm8k"]})
    assert turns("openmath", raw, where={"problem_source": "math"})[0] == ("user", "p")


def test_a_missing_column() -> None:
    with pytest.raises(DataError, match="needs text in `targets`"):
        turns("flan", {"inputs": "p"})
