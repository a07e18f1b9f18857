"""What verifiers share: their protocol, and how completions and ground truths are read."""

from __future__ import annotations

import ast
import json
from typing import Any, Protocol, runtime_checkable

from posttrain.formats import Verdict


@runtime_checkable
class Verifier(Protocol):
    """Scores one completion against a ground truth; the row's other columns come as keywords.

    A completion that cannot be read scores 0 with a reason; only a ground truth that cannot be
    read raises (`VerifierError`), and `check_ground_truth` finds that out before a run starts.
    """

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict: ...

    def check_ground_truth(self, ground_truth: Any) -> None: ...


def answer_of(completion: Any) -> str:
    """The completion without its `<think>` section, so that thoughts cannot score."""
    if not isinstance(completion, str):
        return ""
    _, closed, answer = completion.rpartition("</think>")
    if closed:
        return answer.strip()
    return completion.partition("<think>")[0].strip()


def tagged_or_all(answer: str) -> str:
    """The inside of the last `<answer>` tag, where tags are closed at all; else all of it."""
    if "<answer>" not in answer or "</answer>" not in answer:
        return answer
    return answer.rpartition("<answer>")[2].partition("</answer>")[0]


def read_structure(ground_truth: Any) -> Any:
    """The object that JSON text (or a Python literal) stands for; other values as they are."""
    if not isinstance(ground_truth, str):
        return ground_truth
    for read in (json.loads, ast.literal_eval):
        try:
            return read(ground_truth)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return ground_truth


def shown(value: Any, limit: int = 80) -> str:
    """A value as it stands in a message: its repr, cut when it is long."""
    text = repr(value[: 2 * limit] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
