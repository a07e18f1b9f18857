"""The row shapes that travel down the road, and the `Generate` protocol. No torch here.

    text          {"text": str}                                                       pretrain
    conversation  {"messages": [Message, ...]}                                        sft
    preference    {"prompt": [Message, ...], "chosen": [Message], "rejected": [...]}  dpo, reward
    problem       {"prompt": [Message, ...], "ground_truth": str, "verifier": str}    rlvr, eval

Every row also carries `source`, the name of where it came from, all the way to the loss.
`to_row(kind, raw)` turns what the ecosystem writes (messages; prompt/completion; strings or
message lists) into these, and refuses what it cannot read with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from posttrain.errors import DataError

ROLES = ("system", "user", "assistant", "tool")

Row = dict[str, Any]


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one completion.

    Attributes:
        score: 0 (wrong) to 1 (right); fractions where several constraints are counted.
        reason: one short sentence that a person can check.
    """

    score: float
    reason: str


class Generate(Protocol):
    """Conversations in, one completion each out. Batching is the implementer's business."""

    def __call__(self, prompts: Sequence[Sequence[Message]]) -> list[str]: ...


def to_messages(value: Any, role: str, field: str) -> list[Message]:
    """Read a string (one turn of `role`) or a list of messages.

    Raises:
        DataError: the value is neither, is empty, or a message lacks a known role or text.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or not value:
        raise DataError(
            f"`{field}` must be a string or a non-empty list of messages, got {value!r}"
        )
    messages: list[Message] = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise DataError(
                f"`{field}[{i}]` needs a role among {', '.join(ROLES)}, got {message!r}"
            )
        if not isinstance(message.get("content"), str):
            raise DataError(f"`{field}[{i}].content` must be text, got {message.get('content')!r}")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def to_text(raw: Mapping[str, Any]) -> Row:
    """A pretraining row: `{"text": ...}`."""
    if not isinstance(raw.get("text"), str) or not raw["text"].strip():
        raise DataError(f"a text row needs a non-empty `text`; it has {sorted(raw)}")
    return {"text": raw["text"]}


def to_conversation(raw: Mapping[str, Any]) -> Row:
    """An SFT row from `messages`, or from `prompt` + `completion` (strings or messages).

    Raises:
        DataError: no such fields, or no assistant turn to learn from.
    """
    if raw.get("messages") is not None:
        messages = to_messages(raw["messages"], "user", "messages")
    elif raw.get("prompt") is not None and raw.get("completion") is not None:
        messages = to_messages(raw["prompt"], "user", "prompt")
        messages += to_messages(raw["completion"], "assistant", "completion")
    else:
        raise DataError(
            f"an SFT row needs `messages`, or `prompt` and `completion`; it has {sorted(raw)} "
            "(name the fields with `columns:`, as in {prompt: question, completion: answer})"
        )
    if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        raise DataError(
            "the row has no assistant turn with text, so there is nothing to learn from it"
        )
    return {"messages": messages}


def to_preference(raw: Mapping[str, Any]) -> Row:
    """A preference row from `chosen` and `rejected`, with or without an explicit `prompt`.

    Without a prompt both sides are whole conversations; the turns they share are the prompt.

    Raises:
        DataError: missing sides, equal sides, or sides that do not end with an assistant turn.
    """
    if raw.get("chosen") is None or raw.get("rejected") is None:
        raise DataError(
            f"a preference row needs `chosen` and `rejected`; it has {sorted(raw)} "
            "(name the fields with `columns:`)"
        )
    chosen = to_messages(raw["chosen"], "assistant", "chosen")
    rejected = to_messages(raw["rejected"], "assistant", "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared:
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    elif raw.get("prompt") is not None:
        prompt = to_messages(raw["prompt"], "user", "prompt")
    else:
        raise DataError("`chosen` and `rejected` share no turns and there is no `prompt`")
    if chosen == rejected:
        raise DataError("`chosen` equals `rejected`: the pair prefers nothing; drop the row")
    for field, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise DataError(f"`{field}` must end with an assistant turn, got {side[-1]['role']}")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def to_problem(raw: Mapping[str, Any]) -> Row:
    """An RLVR or evaluation row: a prompt, its ground truth and the verifier that reads it.

    `messages` may stand for `prompt` (a trailing assistant turn is dropped), and open-instruct's
    `dataset` column for `verifier`. A ground truth that is not text is kept as JSON text.

    Raises:
        DataError: no prompt, no ground truth or no verifier.
    """
    value = raw.get("prompt") if raw.get("prompt") is not None else raw.get("messages")
    if value is None:
        raise DataError(f"a problem needs `prompt` or `messages`; it has {sorted(raw)}")
    prompt = to_messages(value, "user", "prompt")
    if len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        prompt = prompt[:-1]
    if raw.get("ground_truth") is None:
        raise DataError("a problem needs a `ground_truth` to be verified against")
    verifier = raw.get("verifier") or raw.get("dataset")
    if not isinstance(verifier, str):
        raise DataError(f"a problem needs the name of a `verifier`, got {verifier!r}")
    truth = raw["ground_truth"]
    return {
        "prompt": prompt,
        "ground_truth": truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False),
        "verifier": verifier.lower(),
    }


_READERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "conversation": to_conversation,
    "preference": to_preference,
    "problem": to_problem,
    "text": to_text,
}


def to_row(kind: str, raw: Mapping[str, Any]) -> Row:
    """Read one raw row as `kind` (`text`, `conversation`, `preference` or `problem`)."""
    return _READERS[kind](raw)
