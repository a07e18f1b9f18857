"""Glaive's function calls, which are written into a transcript."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, from_json, shown
from posttrain.sources.adapters.base import maybe_text, text

MARKER = re.compile(r"(?:\A|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
CALL = re.compile(
    r"<functioncall>\s*\{\s*\"name\":\s*\"([^\"]+)\"\s*(?:,\s*\"arguments\":\s*(.*?))?\s*\}\s*\Z",
    re.DOTALL,
)
END = "<|endoftext|>"


@dataclass(frozen=True)
class Glaive:
    r"""glaiveai/glaive-function-calling-v2.

        {"system": "SYSTEM: You are a helpful assistant with access to the following functions. …",
         "chat": "USER: Can you tell me the latest news headlines for the United States?\n\n\n
          ASSISTANT: <functioncall> {\"name\": \"get_news_headlines\",
          \"arguments\": '{\"country\": \"United States\"}'} <|endoftext|>\n\n\nFUNCTION
          RESPONSE: {\"headlines\": [\"Biden announces new vaccine mandates\", …"}

    The functions stay where they are, as text in the system turn; calls become tool calls.
    """

    def __call__(self, raw: Any) -> list[Row]:
        system = maybe_text(raw, "system").strip().removeprefix("SYSTEM:").strip()
        turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        before, *rest = MARKER.split(text(raw, "chat"))
        if before.strip() or not rest:
            raise DataError(f"`chat` must begin with USER: or ASSISTANT:, got {shown(before)}")
        for who, said in zip(rest[::2], rest[1::2], strict=True):
            turns.append(turn_of(who, said.replace(END, "").strip()))
        return [{"messages": turns}]


def turn_of(who: str, said: str) -> dict[str, Any]:
    """One turn; text before a call stays its content."""
    if who == "USER":
        return {"role": "user", "content": said}
    if who != "ASSISTANT":
        return {"role": "tool", "content": said}
    content, called, _ = said.partition("<functioncall>")
    if not called:
        return {"role": "assistant", "content": said}
    found = CALL.match(said[len(content) :])
    if found is None:
        raise DataError(f"a function call cannot be read, got {shown(said)}")
    written = (found.group(2) or "{}").strip()
    if written[:1] == written[-1:] == "'":  # JSON inside single quotes
        written = written[1:-1].replace("\\'", "'")
    arguments = from_json(written, "arguments")
    call = {"type": "function", "function": {"name": found.group(1), "arguments": arguments}}
    return {"role": "assistant", "content": content.strip(), "tool_calls": [call]}
