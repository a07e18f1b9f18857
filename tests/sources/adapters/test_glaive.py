"""Function calls in Glaive's transcripts."""

from __future__ import annotations

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.glaive import Glaive

CHAT = """USER: What is 500 USD in euros?


ASSISTANT: <functioncall> {"name": "convert", "arguments": '{"amount": 500, "to": "EUR"}'} \
<|endoftext|>


FUNCTION RESPONSE: {"amount": 425.5}


ASSISTANT: It's 425.50 euros. <|endoftext|>


"""


def test_a_call_and_its_answer() -> None:
    raw = {"system": "SYSTEM: You may call convert. -\n{...}\n", "chat": CHAT}
    messages = to_row("conversation", Glaive()(raw)[0])["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[0]["content"] == "You may call convert. -\n{...}"
    call = messages[2]["tool_calls"][0]["function"]
    assert call == {"name": "convert", "arguments": {"amount": 500, "to": "EUR"}}
    assert messages[4]["content"] == "It's 425.50 euros."


@pytest.mark.parametrize(
    ("call", "arguments"),
    [('{"name": "f"}', {}), ('{"name": "f", "arguments": {"a": {"b": 1}}}', {"a": {"b": 1}})],
)
def test_other_spellings_of_arguments(call: str, arguments: dict) -> None:
    (row,) = Glaive()({"chat": f"USER: a\n\nASSISTANT: Sure. <functioncall> {call}"})
    said = row["messages"][1]
    assert said["content"] == "Sure."
    assert said["tool_calls"][0]["function"] == {"name": "f", "arguments": arguments}


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        ("hello", "must begin with USER:"),
        ("USER: a\nASSISTANT: <functioncall> f(2)", "cannot be read"),
        ("""USER: a\nASSISTANT: <functioncall> {"name": "f", "arguments": '{'}""", "must be JSON"),
    ],
)
def test_what_cannot_be_read(chat: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Glaive()({"chat": chat})
