"""Raw rows -> rows of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from posttrain.errors import DataError
from posttrain.formats.messages import check_order, parse_messages, says, to_messages
from posttrain.formats.repairs import absent, clean, fields_of, shown, to_json, to_objects, to_str
from posttrain.formats.shapes import Message, Row

SEVERAL = "+"  # joins the names of several verifiers


def has(raw: Mapping[str, Any], *fields: str) -> bool:
    """Whether all these fields hold something."""
    return not any(absent(raw.get(field)) for field in fields)


def to_text(raw: Mapping[str, Any], applied: set[str]) -> Row:
    """A pretraining row: `{"text": ...}`."""
    text = to_str(raw["text"], "text", applied) if has(raw, "text") else ""
    if not text.strip():
        raise DataError(f"a text row needs a non-empty `text`; it has {fields_of(raw)}")
    return {"text": text}


def to_conversation(raw: Mapping[str, Any], applied: set[str]) -> Row:
    """An SFT row from `messages`, or from `prompt` + `completion` (strings or messages).

    Raises:
        DataError: no such fields, or no assistant turn to learn from.
    """
    if has(raw, "messages"):
        value = parse_messages(raw["messages"], "messages", applied)
        messages = to_messages(value, "user", "messages", applied)
    elif has(raw, "prompt", "completion"):
        messages = to_messages(raw["prompt"], "user", "prompt", applied)
        messages += to_messages(raw["completion"], "assistant", "completion", applied)
    else:
        raise DataError(
            f"an SFT row needs `messages`, or `prompt` and `completion`; it has {fields_of(raw)} "
            "(name the fields with `columns:`, as in {prompt: question, completion: answer}, or"
            " the way that rows are written with `format:`)"
        )
    check_order(messages, "messages")
    return {"messages": learnable(messages, applied)} | tools_of(raw, applied)


def learnable(messages: list[Message], applied: set[str]) -> list[Message]:
    """The turns up to the last answer, of which empty ones are not trained."""
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant" and says(m)]
    if not answers:
        raise DataError(
            "the row has no assistant turn with text, so there is nothing to learn from it"
        )
    if all(messages[i].get("train") is False for i in answers):
        raise DataError("every assistant turn of the row says `train: false`")
    if answers[-1] + 1 < len(messages):
        applied.add("turns_after_last_answer_cut")
    kept = messages[: answers[-1] + 1]
    for i, message in enumerate(kept):
        if message["role"] == "assistant" and i not in answers and message.get("train", True):
            applied.add("empty_answer_untrained")
            message["train"] = False
    return kept


def tools_of(raw: Mapping[str, Any], applied: set[str]) -> Row:
    """`{"tools": [...]}` if the row describes any."""
    tools = to_objects(raw.get("tools"), "tools", applied)
    return {"tools": tools} if tools else {}


def to_preference(raw: Mapping[str, Any], applied: set[str]) -> Row:
    """A preference row from `chosen` and `rejected`, with or without an explicit `prompt`.

    The sides are answers (strings, one message, messages) to the `prompt`, or whole conversations
    (whatever the `prompt` then says); the turns that they share belong to the prompt. A `margin`
    that is a number is kept: reward models may be asked for that much of a gap.

    Raises:
        DataError: missing, equal or empty sides, or sides that do not end with an assistant turn.
    """
    if not has(raw, "chosen", "rejected"):
        raise DataError(
            f"a preference row needs `chosen` and `rejected`; it has {fields_of(raw)} "
            "(name the fields with `columns:`)"
        )
    prompt: list[Message] = []
    if not has(raw, "prompt"):  # whole conversations then, which tables store as JSON text
        raw = {**raw, **{f: parse_messages(raw[f], f, applied) for f in ("chosen", "rejected")}}
    chosen = to_messages(raw["chosen"], "assistant", "chosen", applied)
    rejected = to_messages(raw["rejected"], "assistant", "rejected", applied)
    if has(raw, "prompt"):
        prompt = to_messages(raw["prompt"], "user", "prompt", applied)
    size = len(prompt)
    if chosen[:size] == rejected[:size] == prompt or chosen[0]["role"] != "assistant":
        prompt = []  # whole conversations
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    if not prompt:
        raise DataError(
            "`chosen` and `rejected` share no turns, and there is no `prompt` they answer"
        )
    if chosen == rejected:
        raise DataError("`chosen` equals `rejected`: the pair prefers nothing; drop the row")
    for field, side in (("chosen", chosen), ("rejected", rejected)):
        check_side(field, prompt, side)
    row: Row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return row | margin_of(raw) | tools_of(raw, applied)


def margin_of(raw: Mapping[str, Any]) -> Row:
    """`{"margin": number}` if the row says how much better the chosen answer is."""
    value = raw.get("margin")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return {}
    try:
        number = float(value)
    except (ValueError, OverflowError):  # a column of this name that means something else
        return {}
    return {"margin": number} if isfinite(number) else {}


def check_side(field: str, prompt: list[Message], side: list[Message]) -> None:
    """Refuse a side that the model could not have written."""
    if side[0]["role"] != "assistant":
        raise DataError(
            f"`chosen` and `rejected` must part at an assistant turn, got {side[0]['role']}"
        )
    if side[-1]["role"] != "assistant":
        raise DataError(f"`{field}` must end with an assistant turn, got {side[-1]['role']}")
    if not says(side[-1]):
        raise DataError(f"the last turn of `{field}` says nothing")
    check_order([*prompt, *side], field)


def to_problem(raw: Mapping[str, Any], applied: set[str]) -> Row:
    """An RLVR or evaluation row: a prompt, its ground truth and the verifier that reads it.

    `messages` may stand for `prompt` (a trailing assistant turn is dropped), and open-instruct's
    `dataset` column for `verifier`. A ground truth that is not text is kept as JSON text. Several
    verifiers, given as lists of the same length, become one name joined by `+` whose ground truth
    is the JSON text of the list.

    Raises:
        DataError: no prompt, no ground truth, no verifier, or lists of different lengths.
    """
    field = "prompt" if has(raw, "prompt") else "messages"
    if not has(raw, field):
        raise DataError(f"a problem needs `prompt` or `messages`; it has {fields_of(raw)}")
    value = parse_messages(raw[field], field, applied) if field == "messages" else raw[field]
    prompt = to_messages(value, "user", field, applied)
    if len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        applied.add("answer_cut_from_prompt")
        prompt = prompt[:-1]
    if prompt[-1]["role"] == "assistant":
        raise DataError(f"`{field}` must end with a turn to answer, got an assistant turn")
    check_order(prompt, field)
    if not has(raw, "ground_truth"):
        raise DataError("a problem needs a `ground_truth` to be verified against")
    verifier, truth = verified_by(raw)
    text = truth if isinstance(truth, str) else to_json(truth, "ground_truth", applied)
    row: Row = {"prompt": prompt, "ground_truth": clean(text, applied), "verifier": verifier}
    return row | tools_of(raw, applied)


def verified_by(raw: Mapping[str, Any]) -> tuple[str, Any]:
    """Name of the verifier, and the ground truth as that verifier reads it."""
    truth, column = raw["ground_truth"], raw.get("dataset")
    names = raw.get("verifier") or column
    if isinstance(names, str) and isinstance(column, list):
        names = [names] * len(column)  # one name in the place of a list's
    if isinstance(names, list):
        if not names or not all(isinstance(name, str) and name for name in names):
            raise DataError(f"a problem needs the names of its verifiers, got {shown(names)}")
        truths = truth if isinstance(truth, list) else [truth]
        if len(truths) != len(names):
            raise DataError(
                "`ground_truth` and the list of verifiers must be equally long, got"
                f" {len(truths)} and {len(names)}"
            )
        return SEVERAL.join(names).lower(), truths[0] if len(truths) == 1 else truths
    if not isinstance(names, str) or not names:
        raise DataError(f"a problem needs the name of a `verifier`, got {shown(names)}")
    return names.lower(), truth


_READERS: dict[str, Callable[[Mapping[str, Any], set[str]], Row]] = {
    "conversation": to_conversation,
    "preference": to_preference,
    "problem": to_problem,
    "text": to_text,
}


def to_row(kind: str, raw: Any, repairs: Counter[str] | None = None) -> Row:
    """Read one raw row as `kind` (`text`, `conversation`, `preference` or `problem`).

    Args:
        kind: what the row is to be.
        raw: a mapping of fields; see the readers of this file.
        repairs: counts the rows that each rule of `REPAIRS` mended.

    Raises:
        DataError: the row cannot be read; the text up to `, got ` is the same for all rows that
            fail in this way.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"a row must be an object with named fields, got {shown(raw)}")
    applied: set[str] = set()
    row = _READERS[kind](raw, applied)
    if repairs is not None:
        repairs.update(applied)
    return row
