"""The types of rows, messages and verdicts, and the `Generate` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

ROLES = ("system", "user", "assistant", "tool")

Row = dict[str, Any]


class Message(TypedDict):
    """One turn of a conversation.

    Keys:
        role: `system`, `user`, `assistant` or `tool`.
        content: its text; empty only where an assistant turn calls tools.
        name: who speaks, or the tool that answers.
        tool_calls: an assistant's calls, as JSON objects.
        tool_call_id: the call that a tool turn answers.
        train: `False` for an assistant turn that is never trained.
    """

    role: str
    content: str
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    train: NotRequired[bool]


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one completion.

    Attributes:
        score: 0 (wrong) to 1 (right); fractions where several constraints are counted.
        reason: one short sentence that a person can check.
        fault: `timeout`, `crash` or `unparsed` where the verifier itself did not get through.
        applies: `False` where the verifier has nothing to say of this row; the score is 0 then.
    """

    score: float
    reason: str
    fault: str = ""
    applies: bool = True


class Generate(Protocol):
    """Conversations in, one completion each out. Batching is the implementer's business."""

    def __call__(self, prompts: Sequence[Sequence[Message]]) -> list[str]: ...
