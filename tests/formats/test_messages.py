"""Messages as data sets write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import ROLES, to_messages, to_row
from posttrain.formats.messages import ROLE_NAMES

ASK = {"role": "user", "content": "2+2?"}
SAY = {"role": "assistant", "content": "4"}


def read(*messages: Any) -> tuple[list[Any], set[str]]:
    applied: set[str] = set()
    return list(to_messages(list(messages), "user", "messages", applied)), applied


def test_a_string_is_one_turn() -> None:
    assert to_messages("hi", "user", "prompt") == [{"role": "user", "content": "hi"}]


def test_plain_messages_need_no_repair() -> None:
    assert read(ASK, SAY) == ([ASK, SAY], set())


@pytest.mark.parametrize(
    ("written", "role"), [*ROLE_NAMES.items(), ("Assistant", "assistant"), (" USER ", "user")]
)
def test_roles_by_other_names(written: str, role: str) -> None:
    assert role in ROLES
    messages, applied = read({"role": written, "content": "4"})
    assert (messages[0]["role"], applied) == (role, {"role_renamed"})


def test_from_and_value() -> None:
    messages, applied = read({"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"})
    assert (messages, applied) == ([ASK, SAY], {"from_value_read", "role_renamed"})


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
    assert read(ASK | {"content": parts}) == ([ASK], {"text_parts_joined"})


def test_a_tool_may_answer_with_an_object() -> None:
    messages, applied = read(SAY, {"role": "tool", "content": {"n": "ä"}})
    assert (messages[1]["content"], applied) == ('{"n": "ä"}', {"tool_result_as_json"})


def test_empty_fields_of_a_table_are_dropped() -> None:
    empty = {"name": None, "tool_calls": None, "tool_call_id": None, "train": None, "weight": None}
    assert read(ASK | empty, SAY | empty | {"tool_calls": []}) == ([ASK, SAY], set())


def test_names_and_call_ids_are_kept() -> None:
    tool = {"role": "tool", "content": "4", "name": "add", "tool_call_id": "c1"}
    assert read(ASK | {"name": "Ada"}, tool)[0] == [ASK | {"name": "Ada"}, tool]


def test_a_number_as_a_name_is_written_out() -> None:
    messages, applied = read(ASK | {"name": 7}, SAY | {"name": ""})
    assert (messages, applied) == ([ASK | {"name": "7"}, SAY], {"integer_as_text"})


def test_calls_may_be_json_text() -> None:
    calls = [{"function": {"name": "add", "arguments": "{}"}}]
    said = {"role": "assistant", "tool_calls": json.dumps(calls)}
    assert read(said)[0] == [{"role": "assistant", "content": "", "tool_calls": calls}]
    said = {"role": "assistant", "tool_calls": [json.dumps(calls[0])], "content": None}
    assert read(said)[0] == [{"role": "assistant", "content": "", "tool_calls": calls}]


def test_weight_is_read_as_train() -> None:
    messages, applied = read(SAY | {"weight": 0}, SAY | {"weight": 1})
    assert ([m["train"] for m in messages], applied) == ([False, True], {"weight_read_as_train"})


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "they", "content": "x"}, "needs a role among"),
        ({"role": None, "content": "x"}, "needs a role among"),
        ({"role": ["user"], "content": "x"}, "needs a role among"),
        ({"content": "x"}, "needs a role among"),
        ({"role": "user"}, "must be text, got None"),
        ({"role": "user", "content": True}, "must be text, got True"),
        ({"role": "user", "content": 2.5}, "must be text, got 2.5"),
        ({"role": "user", "content": []}, "must be text, got []"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part that is none"),
        ({"role": "user", "content": {"text": "x"}}, "must be text, got {"),
        ({"role": "user", "content": "x", "tool_calls": [{}]}, "only an assistant turn"),
        (SAY | {"tool_calls": "["}, "`messages.tool_calls` must be JSON"),
        (SAY | {"tool_calls": [3]}, "list of JSON objects"),
        (SAY | {"tool_calls": [{"at": b"x"}]}, "cannot be written as JSON"),
        (SAY | {"tool_calls": '[{"a": 1, "a": 2}]'}, "`messages.tool_calls` has the key 'a' twice"),
        (ASK | {"name": {"first": "Ada"}}, "`messages.name` must be text"),
        ({"role": "tool", "content": "4", "tool_call_id": 1.5}, "`messages.tool_call_id` must be"),
        (SAY | {"train": "no"}, "true or false"),
        (SAY | {"weight": 0.5}, "must be 0 or 1"),
    ],
)
def test_messages_that_cannot_be_read(message: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(message)
    assert says in str(caught.value)


def test_reasons_do_not_depend_on_the_row() -> None:
    reasons = set()
    for role in ("they", "it"):
        with pytest.raises(DataError) as caught:
            read(ASK, {"role": role, "content": "x"})
        reasons.add(str(caught.value).split(", got ")[0])
    assert len(reasons) == 1


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (json.dumps([ASK, SAY]), [ASK, SAY]),
        ("[1, 2]", None),
        ("[{", None),
        ("[]", None),
        ("hello", None),
    ],
)
def test_only_a_list_of_objects_is_parsed(value: str, parsed: list[Any] | None) -> None:
    if parsed:
        assert to_row("conversation", {"messages": value}) == {"messages": parsed}
        return
    with pytest.raises(DataError, match="no assistant turn"):
        to_row("conversation", {"messages": value})


def test_messages_in_json_text_have_each_key_once() -> None:
    twice = '[{"role": "user", "content": "2+2?", "content": "3+3?"}]'
    for kind, rest in [
        ("conversation", {}),
        ("problem", {"ground_truth": "4", "verifier": "math"}),
    ]:
        with pytest.raises(DataError, match="`messages` has the key 'content' twice in one object"):
            to_row(kind, {"messages": twice} | rest)


def test_json_as_an_answer_stays_text() -> None:
    answer = json.dumps([ASK, SAY])
    row = to_row("conversation", {"prompt": "Show messages.", "completion": answer})
    assert row["messages"][1]["content"] == answer
