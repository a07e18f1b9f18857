"""ShareGPT turns, tool calls and preferences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.sharegpt import SPEAKERS, ShareGPT


def said(who: str, what: Any) -> dict[str, Any]:
    return {"from": who, "value": what}


@pytest.mark.parametrize("who", [w for w in SPEAKERS if w != "function_call"])
def test_speakers(who: str) -> None:
    (row,) = ShareGPT()({"conversations": [said(who.upper(), "a")]})
    assert row == {"messages": [{"role": SPEAKERS[who], "content": "a"}]}


def test_a_call_its_answer_and_the_tools() -> None:
    call = {"name": "add", "arguments": {"a": 2}}
    turns = [said("human", "2+?"), said("function_call", json.dumps(call))]
    turns += [said("observation", "4"), said("gpt", "It is 4.")]
    tools = [{"name": "add", "parameters": {}}]
    raw = {"conversations": turns, "system": "Be kind.", "tools": json.dumps(tools)}
    row = to_row("conversation", ShareGPT()(raw)[0])
    assert row["tools"] == tools
    roles = [m["role"] for m in row["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert row["messages"][2]["tool_calls"] == [{"type": "function", "function": call}]


def test_parallel_calls() -> None:
    calls = json.dumps([{"name": "a", "arguments": {}}, {"name": "b"}])
    (row,) = ShareGPT()({"conversations": [said("function_call", calls)]})
    names = [call["function"]["name"] for call in row["messages"][0]["tool_calls"]]
    assert names == ["a", "b"]


def test_role_and_content_in_the_place_of_from_and_value() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert ShareGPT()({"conversations": turns}) == [{"messages": turns}]


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ("hi", "needs `from` and `value`"),
        (said("they", "a"), "needs `from` among"),
        ({"value": "a"}, "needs `from` among"),
        (said("function_call", "add(2)"), "`function_call` must be JSON"),
        (said("function_call", '{"arguments": {}}'), "needs a `name`"),
        (said("function_call", "[]"), "needs a `name`"),
    ],
)
def test_wrong_turns(turn: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        ShareGPT()({"conversations": [turn]})
    assert says in str(caught.value)


def test_real_pairs_and_calls(shared_rows: Callable[..., Any]) -> None:
    for raw in shared_rows("dpo_en_demo/dpo_en_demo.jsonl.gz"):
        row = to_row("preference", ShareGPT()(raw)[0])
        assert len(row["prompt"]) == len(raw["conversations"])
        assert row["chosen"][0]["content"] == raw["chosen"]["value"]
    calls = 0
    for raw in shared_rows("glaive_toolcall/glaive_toolcall_en_demo.jsonl.gz"):
        row = to_row("conversation", ShareGPT()(raw)[0])
        assert len(row.get("tools", [])) == len(json.loads(raw["tools"] or "[]"))
        calls += sum("tool_calls" in message for message in row["messages"])
    assert calls == sum(
        turn["from"] == "function_call"
        for raw in shared_rows("glaive_toolcall/glaive_toolcall_en_demo.jsonl.gz")
        for turn in raw["conversations"]
    )
