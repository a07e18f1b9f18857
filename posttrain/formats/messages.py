"""Messages as the ecosystem writes them -> our messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.formats.repairs import absent, decode_json, shown, to_json, to_objects, to_str
from posttrain.formats.shapes import ROLES, Message

ROLE_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "developer": "system",
}


def to_messages(
    value: Any, role: str, field: str, applied: set[str] | None = None
) -> list[Message]:
    """Read a string (one turn of `role`), one message, or a list of messages.

    Args:
        value: what the field holds.
        role: who speaks when it is a string.
        field: the field's name, for messages.
        applied: gets the names of the repairs that were needed.

    Raises:
        DataError: the value is none of these, is empty, or a message lacks a known role or text.
    """
    applied = set() if applied is None else applied
    if isinstance(value, Mapping):
        applied.add("message_wrapped")
        value = [value]
    if isinstance(value, (list, tuple)) and value:
        return [to_message(message, field, applied) for message in value]
    if isinstance(value, (list, tuple)) or not isinstance(value, (str, int)):
        raise DataError(
            f"`{field}` must be a string or a non-empty list of messages, got {shown(value)}"
        )
    return [{"role": role, "content": to_str(value, field, applied)}]


def to_message(raw: Any, field: str, applied: set[str]) -> Message:
    """Read one message of `field`."""
    if not isinstance(raw, Mapping):
        raise unknown_role(field, raw)
    if "role" not in raw and "from" in raw:
        applied.add("from_value_read")
        raw = {**raw, "role": raw["from"], "content": raw.get("value")}
    role = to_role(raw.get("role"), applied)
    if role is None:
        raise unknown_role(field, raw)
    calls = to_objects(raw.get("tool_calls"), f"{field}.tool_calls", applied)
    if calls and role != "assistant":
        raise DataError(f"`{field}`: only an assistant turn can have tool_calls, got {role}")
    message: Message = {"role": role, "content": to_content(raw, role, calls, field, applied)}
    if name := maybe_str(raw, "name", field, applied):
        message["name"] = name
    if calls:
        message["tool_calls"] = calls
    if answered := maybe_str(raw, "tool_call_id", field, applied):
        message["tool_call_id"] = answered
    train = to_train(raw, field, applied)
    if train is not None:
        message["train"] = train
    return message


def maybe_str(raw: Mapping[str, Any], key: str, field: str, applied: set[str]) -> str:
    """Text that a message need not have; empty where it has none."""
    return "" if absent(raw.get(key)) else to_str(raw[key], f"{field}.{key}", applied)


def unknown_role(field: str, message: Any) -> DataError:
    return DataError(
        f"each turn of `{field}` needs a role among {', '.join(ROLES)}, got {shown(message)}"
    )


def to_role(value: Any, applied: set[str]) -> str | None:
    """Our name of a role; `None` if it is unknown."""
    if value in ROLES:
        return str(value)
    if not isinstance(value, str):
        return None
    name = value.strip().lower()
    role = ROLE_NAMES.get(name, name)
    if role not in ROLES:
        return None
    applied.add("role_renamed")
    return role


def to_content(
    raw: Mapping[str, Any], role: str, calls: list[Any], field: str, applied: set[str]
) -> str:
    """The text of a message; empty where an assistant says nothing but calls tools."""
    content = raw.get("content")
    if calls and absent(content):
        return ""
    if role == "tool" and isinstance(content, (list, Mapping)) and not has_parts(content):
        applied.add("tool_result_as_json")
        return to_json(content, f"{field}.content", applied)
    return to_str(content, f"{field}.content", applied)


def has_parts(content: Any) -> bool:
    """Whether content is a list of text parts rather than any other list."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content)
    )


def to_train(raw: Mapping[str, Any], field: str, applied: set[str]) -> bool | None:
    """Whether a message is trained, from `train` or from `weight`; `None` if it does not say."""
    train, weight = raw.get("train"), raw.get("weight")
    if absent(train):
        if absent(weight):
            return None
        if weight not in (0, 1):
            raise DataError(f"`{field}.weight` must be 0 or 1, got {shown(weight)}")
        applied.add("weight_read_as_train")
        return bool(weight)
    if not isinstance(train, bool):
        raise DataError(f"`{field}.train` must be true or false, got {shown(train)}")
    return train


def parse_messages(value: Any, field: str, applied: set[str]) -> Any:
    """A field that is the JSON text of a list of objects, parsed; other values as they are.

    Raises:
        DataError: one of the objects has one key twice.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = decode_json(value)
    except DataError as error:
        raise DataError(f"`{field}` {error}") from None
    except (ValueError, RecursionError):
        return value
    if not found or not all(isinstance(item, Mapping) for item in found):
        return value
    applied.add("messages_parsed")
    return found


def says(message: Message) -> bool:
    """Whether a turn has text or calls a tool."""
    return bool(message.get("tool_calls")) or bool(message["content"].strip())


def check_order(messages: Sequence[Message], field: str) -> None:
    """Refuse a tool's answer that nobody asked for.

    Calls may stand in the text of an assistant turn, so any assistant turn can have asked.

    Raises:
        DataError: a tool turn does not follow an assistant's or another tool's.
    """
    before = ""
    for message in messages:
        if message["role"] == "tool" and before not in ("assistant", "tool"):
            raise DataError(
                f"`{field}` has a tool's answer that follows no assistant turn, got it after"
                f" {before or 'nothing'}"
            )
        before = message["role"]
