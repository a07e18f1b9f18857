"""What may be mended in a row, and the values that rows hold: text, JSON, nothing.

Every repair has a name and is counted. None of them guesses: where two readings are possible the
row is refused instead. Left as they are, because each is how some data set is meant: two turns of
one role in a row (chat logs), an assistant turn first (a greeting; one that is to be trained is
dropped where the masks are made), a system turn further down (instructions that change), and text
of any length (`max_length` and the length filter decide).
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from posttrain.errors import DataError

REPAIRS: dict[str, str] = {
    "nul_removed": "NUL characters say nothing and end a text in many programs; they are removed.",
    "surrogates_replaced": "Two halves of a character that stand side by side are joined; a half"
    " that is alone cannot be written as UTF-8 and becomes U+FFFD.",
    "integer_as_text": "A whole number in the place of a text is written out (7 becomes '7');"
    " fractions and truth values are refused, since how they were spelt is lost.",
    "text_parts_joined": "Content that is a list of text parts becomes their text, joined without a"
    " separator; a part that is no text is refused.",
    "role_renamed": "A role in other letters or by another common name gets ours: human and"
    " prompter are user; gpt, chatgpt, bot and model are assistant; function, observation, ipython"
    " and tool_response are tool; developer is system.",
    "from_value_read": "A message that says `from` and `value` is read as `role` and `content`.",
    "messages_parsed": "`messages` that is the JSON text of a list is parsed, and `chosen` and"
    " `rejected` are where there is no `prompt`; a prompt or an answer that looks like JSON stays"
    " text, for it may be meant so.",
    "message_wrapped": "One message in the place of a list of them becomes a list of one.",
    "tool_result_as_json": "A tool's answer that is an object or list becomes its JSON text; tool"
    " turns are never trained.",
    "weight_read_as_train": "A message's `weight` of 0 or 1 is read as `train: false` or `true`.",
    "empty_answer_untrained": "An assistant turn without text or tool calls gets `train: false`: it"
    " would teach to answer with nothing.",
    "turns_after_last_answer_cut": "SFT only: turns after the last answer with text are cut, since"
    " nothing after them is learned.",
    "answer_cut_from_prompt": "A problem's prompt that ends with the answer loses that turn.",
}

LARGEST_INTEGER = 10**18
TEXT_PARTS = ("text", "input_text", "output_text")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlist = _short.maxdict = 20
_short.maxlevel = 3


def shown(value: Any) -> str:
    """A value as it stands in a message: its repr, cut when it is long or deep."""
    try:
        return _short.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a value of type {type(value).__name__}"


def fields_of(raw: Mapping[str, Any]) -> str:
    """The names of the fields that a row has."""
    return shown(sorted(map(str, raw)))


def absent(value: Any) -> bool:
    """Whether a field holds nothing: null, or the NaN that tables put where a value is missing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def clean(text: str, applied: set[str]) -> str:
    """Text that can be written as UTF-8, without NUL."""
    if "\0" in text:
        applied.add("nul_removed")
        text = text.replace("\0", "")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            applied.add("surrogates_replaced")
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def to_str(value: Any, field: str, applied: set[str]) -> str:
    """Read text: a string, a whole number, or a list of text parts.

    Raises:
        DataError: it is something else, or a part is an image, a sound, ...
    """
    if isinstance(value, str):
        return clean(value, applied)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_INTEGER:
        applied.add("integer_as_text")
        return str(value)
    if isinstance(value, list) and value:
        applied.add("text_parts_joined")
        return "".join(part_text(part, field, applied) for part in value)
    raise DataError(f"`{field}` must be text, got {shown(value)}")


def part_text(part: Any, field: str, applied: set[str]) -> str:
    """The text of one part of a message's content."""
    if isinstance(part, str):
        return clean(part, applied)
    if isinstance(part, Mapping) and part.get("type", "text") in TEXT_PARTS:
        text = part.get("text")
        if isinstance(text, str):
            return clean(text, applied)
    raise DataError(f"`{field}` must be text; it has a part that is none, got {shown(part)}")


def to_json(value: Any, field: str, applied: set[str]) -> str:
    """JSON text of a value.

    Raises:
        DataError: JSON has no way to write it (bytes, a date, NaN, ...).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"`{field}` cannot be written as JSON, got {shown(value)}") from error
    return clean(text, applied)


def to_objects(value: Any, field: str, applied: set[str]) -> list[dict[str, Any]]:
    """Read a list of JSON objects, given as such or as JSON text (how tables store them).

    Raises:
        DataError: it is no such list.
    """
    if absent(value) or value in ("", []):
        return []
    value = parsed(value, field)
    if not isinstance(value, list):
        raise DataError(f"`{field}` must be a list of JSON objects, got {shown(value)}")
    found = [parsed(item, field) for item in value]
    if not all(isinstance(item, Mapping) for item in found):
        raise DataError(f"`{field}` must be a list of JSON objects, got {shown(value)}")
    return list(json.loads(to_json(found, field, applied)))


def parsed(value: Any, field: str) -> Any:
    """What JSON text says; other values as they are."""
    return from_json(value, field) if isinstance(value, str) else value


def from_json(text: str, field: str) -> Any:
    """What the JSON text in `field` says.

    Raises:
        DataError: it is no JSON, or an object of it has one key twice.
    """
    try:
        return decode_json(text)
    except DataError as error:
        raise DataError(f"`{field}` {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"`{field}` must be JSON, got {shown(text)}") from error


def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys and values; Python itself would silently take the last of two."""
    made = dict(pairs)
    if len(made) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        first, second, *_ = [shown(value) for name, value in pairs if name == key]
        raise DataError(
            f"has the key {shown(key)} twice in one object; keep one, got {first} and {second}"
        )
    return made


# raises DataError for a key that an object has twice, else what json.loads raises
decode_json = json.JSONDecoder(object_pairs_hook=one_of_each).decode
