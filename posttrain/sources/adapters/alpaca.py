"""Alpaca: instruction, input, output; what is put around them is the chat template's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import joined, maybe_text, text, value


@dataclass(frozen=True)
class Alpaca:
    r"""Alpaca, Code-Alpaca, GPT4-Alpaca, GPTeacher and LLaMA-Factory's files of that name.

        {"instruction": "Write a C++ program that calculates the area of a rectangle, given its …",
         "input": "width: 5, height: 8", "response": "#include <iostream>\nusing namespace std; …"}

    The prompt is the instruction, a blank line and the input where there is one; the answer stands
    in `output` or `response`. A `system` text and a `history` of earlier [question, answer] pairs
    come first; `chosen` and `rejected` make a preference row.
    """

    def __call__(self, raw: Any) -> list[Row]:
        before = [
            {"role": role, "content": content}
            for role, content in (("system", maybe_text(raw, "system")), *history(raw))
            if role != "system" or content.strip()
        ]
        row: Row = {"prompt": [*before, {"role": "user", "content": asked(raw)}]}
        if isinstance(value(raw, "chosen"), str) and isinstance(value(raw, "rejected"), str):
            row |= {"chosen": text(raw, "chosen"), "rejected": text(raw, "rejected")}
            row |= {"completion": row["chosen"]}
        else:
            field = "response" if value(raw, "output") is None else "output"
            row["completion"] = text(raw, field)
        return [row]


def asked(raw: Any) -> str:
    return joined(raw, ("instruction", "input"))


def history(raw: Any) -> list[tuple[str, str]]:
    """Turns before this one, from a list of [question, answer] pairs."""
    turns: list[tuple[str, str]] = []
    pairs = value(raw, "history") or []
    if not isinstance(pairs, (list, tuple)):
        raise DataError(f"`history` must be a list of pairs, got {shown(pairs)}")
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and [type(p) for p in pair] == [str, str]):
            raise DataError(f"`history` must be a list of pairs of text, got {shown(pair)}")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return turns
