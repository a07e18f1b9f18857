"""Every rule mends what it says, is counted by its name, and nothing else is touched."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.formats import REPAIRS, from_json, to_row
from posttrain.formats.repairs import clean, shown, to_json

ASK = {"role": "user", "content": "2+2?"}
SAY = {"role": "assistant", "content": "4"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "nul_removed": ("conversation", {"prompt": "2+\0002?", "completion": "4"}),
    "surrogates_replaced": ("conversation", {"prompt": "2+2?", "completion": "4\ud83d"}),
    "integer_as_text": ("conversation", {"prompt": "2+2?", "completion": 4}),
    "text_parts_joined": (
        "conversation",
        {"messages": [ASK | {"content": [{"type": "text", "text": "2+2?"}]}, SAY]},
    ),
    "role_renamed": ("conversation", {"messages": [ASK | {"role": "human"}, SAY]}),
    "from_value_read": ("conversation", {"messages": [{"from": "user", "value": "2+2?"}, SAY]}),
    "messages_parsed": ("conversation", {"messages": json.dumps([ASK, SAY])}),
    "message_wrapped": ("conversation", {"prompt": "2+2?", "completion": SAY}),
    "tool_result_as_json": (
        "conversation",
        {"messages": [ASK, SAY, {"role": "tool", "content": [1]}, SAY]},
    ),
    "weight_read_as_train": ("conversation", {"messages": [ASK, SAY | {"weight": 1}]}),
    "empty_answer_untrained": ("conversation", {"messages": [ASK, SAY | {"content": ""}, SAY]}),
    "turns_after_last_answer_cut": ("conversation", {"messages": [ASK, SAY, ASK]}),
    "answer_cut_from_prompt": (
        "problem",
        {"messages": [ASK, SAY], "ground_truth": "4", "verifier": "gsm8k"},
    ),
}


def test_every_rule_has_a_case() -> None:
    assert CASES.keys() == REPAIRS.keys()


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_is_counted_once_per_row(rule: str) -> None:
    repairs: Counter[str] = Counter()
    kind, raw = CASES[rule]
    row = to_row(kind, raw, repairs)
    assert repairs == {rule: 1}
    again: Counter[str] = Counter()
    assert to_row(kind, row, again) == row
    assert not again  # a mended row needs no mending


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a\0b\0", "ab"),
        ("\ud83d\ude00", "😀"),
        ("\ud83d!", "\ufffd!"),
        ("!\ude00", "!\ufffd"),
        ("ä\ude00\ud83dö", "ä\ufffd\ufffdö"),
        ("\ufeffä", "\ufeffä"),
    ],
)
def test_clean(text: str, mended: str) -> None:
    assert clean(text, set()) == mended


@given(st.text())
def test_text_that_can_be_written_is_left_alone(text: str) -> None:
    applied: set[str] = set()
    assert clean(text, applied) == text.replace("\0", "")
    assert applied == ({"nul_removed"} if "\0" in text else set())


def test_five_megabytes_are_read_at_once() -> None:
    text = "wörd " * 1_000_000
    start = time.perf_counter()
    row = to_row("conversation", {"prompt": text, "completion": text})
    assert [len(m["content"]) for m in row["messages"]] == [5_000_000] * 2
    assert time.perf_counter() - start < 2
    with pytest.raises(DataError) as caught:
        to_row("conversation", {"messages": [{"role": text, "content": ""}]})
    assert len(str(caught.value)) < 500


def test_shown_bounds_any_value() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, [3] * 10**6, 10**10_000, {str(i): i for i in range(10**5)}):
        assert len(shown(value)) < 1000
    with pytest.raises(DataError, match="cannot be written as JSON"):
        to_json(deep, "tools", set())


def test_json_text() -> None:
    assert from_json("[1]", "a") == [1]
    for text, says in [
        ("[" * 100_000, "`a` must be JSON"),
        ("9" * 5000, "`a` must be JSON"),
        (
            '{"b": {"c": 1, "d": 2, "c": 1}}',
            "`a` has the key 'c' twice in one object; keep one, got 1 and 1$",
        ),
    ]:
        with pytest.raises(DataError, match=says):
            from_json(text, "a")


def test_numbers_that_are_too_long_to_mean_anything() -> None:
    with pytest.raises(DataError, match="must be text"):
        to_row("conversation", {"prompt": 10**10_000, "completion": "4"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "tool", "system", "gpt"]) | json_values,
            "content": st.text(st.characters(codec=None)) | json_values,
            "tool_calls": st.sampled_from(["[{}]", [{"a": 1}], "["]) | json_values,
            "train": st.booleans() | json_values,
            "weight": json_values,
            "name": json_values,
            "from": st.just("human") | json_values,
            "value": json_values,
        },
    )
    | json_values,
    max_size=4,
)
NAMES = "text messages prompt completion chosen rejected ground_truth verifier dataset tools"
rows = st.fixed_dictionaries(
    {}, optional={name: messages | st.text() | json_values for name in NAMES.split()}
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["text", "conversation", "preference", "problem"]), rows | json_values)
def test_any_json_gives_a_row_or_a_data_error(kind: str, raw: Any) -> None:
    repairs: Counter[str] = Counter()
    try:
        row = to_row(kind, raw, repairs)
    except DataError as error:
        assert str(error) and not repairs
        return
    assert repairs.keys() <= REPAIRS.keys()
    json.dumps(row, ensure_ascii=False).encode()  # what follows can write it
    assert to_row(kind, row) == row
