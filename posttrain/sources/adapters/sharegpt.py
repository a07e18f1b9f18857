"""ShareGPT: turns that say who speaks in `from` and what in `value`; tool calls included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, from_json, shown
from posttrain.sources.adapters.base import items, maybe_text, value

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}


@dataclass(frozen=True)
class ShareGPT:
    r"""ShareGPT, WizardLM, and LLaMA-Factory's files of that name, with tools and preferences.

        {"conversations": [
          {"from": "human", "value": "Hi, I was born on 1990-05-15. Can you tell me how old I …"},
          {"from": "function_call", "value": "{\"name\": \"calculate_age\", \"arguments\":
            {\"birthdate\": \"1990-05-15\"}}"}, {"from": "observation", "value": "{\"age\": 31}"},
          {"from": "gpt", "value": "Based on the birthdate you provided, you are 31 years old …"}],
         "tools": "[{\"name\": \"calculate_age\", …}]"}

    A `system` text comes first. `chosen` and `rejected`, one turn each, make a preference row.

    Attributes:
        field: the column that holds the turns.
    """

    field: str = "conversations"

    def __call__(self, raw: Any) -> list[Row]:
        turns = [turn_of(turn, self.field) for turn in items(raw, self.field)]
        system = maybe_text(raw, "system")
        if system.strip():
            turns.insert(0, {"role": "system", "content": system})
        row: Row = {}
        if value(raw, "tools"):
            row["tools"] = raw["tools"]
        if value(raw, "chosen") is None or value(raw, "rejected") is None:
            return [row | {"messages": turns}]
        for side in ("chosen", "rejected"):
            row[side] = [turn_of(raw[side], side)]
        return [row | {"prompt": turns}]


def turn_of(turn: Any, field: str) -> dict[str, Any]:
    """One message from `from` and `value`, or from `role` and `content`."""
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn of `{field}` needs `from` and `value`, got {shown(turn)}")
    if "from" not in turn and "role" in turn:
        return dict(turn)
    speaker = turn.get("from")
    role = SPEAKERS.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(
            f"a turn of `{field}` needs `from` among {', '.join(SPEAKERS)}, got {shown(speaker)}"
        )
    if str(speaker).strip().lower() == "function_call":
        return {"role": role, "content": "", "tool_calls": calls_of(turn.get("value"))}
    return {"role": role, "content": turn.get("value")}


def calls_of(content: Any) -> list[dict[str, Any]]:
    """The calls of a `function_call` turn: one {"name", "arguments"}, or a list of them."""
    found = from_json(content, "function_call") if isinstance(content, str) else content
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(
        isinstance(c, Mapping) and isinstance(c.get("name"), str) for c in calls
    ):
        raise DataError(f"a function_call needs a `name` and `arguments`, got {shown(content)}")
    return [
        {
            "type": "function",
            "function": {"name": call["name"], "arguments": call.get("arguments", {})},
        }
        for call in calls
    ]
