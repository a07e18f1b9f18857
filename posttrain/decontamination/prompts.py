"""The user's side of a row, whatever shape the row has; evaluation files as lists of prompts.

One row of an evaluation file, and of a training file:

    {"question": "Janet's ducks lay 16 eggs per day. ...", "answer": "... #### 18"}
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.decontamination.lines import open_lines, parse
from posttrain.errors import DataError

Fields = str | Sequence[str]  # `prompt`, `all`, or names of fields

# Where a prompt stands, first found first: fields that belong together are one turn. Answers and
# options are left out (as in Tülu 3): another list of letters must not hide a copied question.
SHAPES: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("conversation",),
    ("prompt",),
    ("instruction", "input", "instances"),
    ("text",),
    ("body", "question"),
    ("problem",),
    ("question", "passage", "context"),
    ("query",),
    ("turns",),
    ("input",),
    ("inputs",),
    ("behavior", "contextstring"),
    ("goal",),
    ("sentence",),
    ("ctx",),
    ("context_options", "continuation"),
    ("context",),
    ("chosen",),
)
TEXTUAL = (str, list, tuple, dict)
FIRST = {"passage", "context"}  # stand before the field that names the shape
USERS = {"user", "human", "prompter"}
TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class EvalSet:
    """Evaluation prompts and the name they go by in reports: for a file, its path."""

    name: str
    prompts: Sequence[str]


def user_turns(row: Mapping[str, Any], fields: Fields = "prompt") -> list[str]:
    """The texts of a row that are compared.

    Args:
        row: canonical or raw, as messages, ShareGPT, prompt/completion, Alpaca, a transcript, ...
        fields: `prompt` (the user's turns, found by `SHAPES`; the text of a text row), `all`
            (every text of the row, answers included) or names of fields (all that they hold).

    Raises:
        DataError: the row has no such field, or none that holds text.
    """
    if fields == "all":
        return [t for name, v in row.items() if name != "source" for t in texts(v, every=True)]
    if fields != "prompt":
        names = [fields] if isinstance(fields, str) else fields
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(f"the row has no field {missing[0]!r}; it has {', '.join(row)}")
        return [t for name in names for t in texts(row[name], every=True)]
    values = {str(name).lower(): value for name, value in row.items()}
    seen = False
    for shape in SHAPES:
        if isinstance(values.get(shape[0]), TEXTUAL):
            seen = True
            turns = of_shape(values, shape)
            if turns:
                return turns
    if seen:  # a conversation without a user is compared with nothing
        return []
    raise DataError(
        "no prompt found: there is no messages, prompt, instruction, text, problem, question, "
        f"query, input or the like, only {', '.join(row)}; name its fields with `fields`"
    )


def of_shape(values: Mapping[str, Any], shape: Sequence[str]) -> list[str]:
    """What the user says in a row of this shape; nothing if its first field holds no text."""
    if shape[0] == "context_options" and isinstance(values[shape[0]], list):
        values = {**values, shape[0]: values[shape[0]][:1]}  # they differ in one word
    main = texts(values[shape[0]])
    if len(shape) == 1 or not main:
        return main
    before = [t for f in shape[1:] if f in FIRST and f in values for t in texts(values[f])]
    after = [t for f in shape[1:] if f not in FIRST and f in values for t in texts(values[f])]
    return ["\n".join(t for t in (*before, *main, *after) if t)]


def texts(value: Any, every: bool = False) -> list[str]:
    """Texts inside a value; of messages only the user's unless `every`."""
    if isinstance(value, str):
        return [value] if every else said_by_user(value)
    if isinstance(value, dict):
        return of_message(value, every)
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts(item, every)]
    return []


def of_message(message: Mapping[str, Any], every: bool) -> list[str]:
    """A message, a ShareGPT turn, a node of an answer tree, or an example with an `input`."""
    role = message.get("role", message.get("from"))
    if role is None and not every:
        return texts(message.get("input", message.get("text", message.get("content"))))
    said: list[str] = []
    if every or role in USERS:
        for name in ("content", "value", "text", "input", "output"):
            said += texts(message.get(name), every=True)
    return said + texts(message.get("replies"), every)


def said_by_user(text: str) -> list[str]:
    """The user's turns of a transcript (`\\n\\nHuman: ...`); any other text as it is."""
    if "Human:" not in text or not text.lstrip().startswith("Human:"):
        return [text]
    parts = TRANSCRIPT.split(text.lstrip())
    return [
        said.strip() for who, said in zip(parts[1::2], parts[2::2], strict=True) if who == "Human"
    ]


def eval_set(name: str, rows: Iterable[Mapping[str, Any]], fields: Fields = "prompt") -> EvalSet:
    """Prompts of rows; the user's turns of one row are one prompt.

    Raises:
        DataError: a row without a prompt, named with its number; no rows, or no text in any.
    """
    return _gather(name, ((f"{name}: row {i}", row) for i, row in enumerate(rows)), fields)


def read_eval_file(path: Path | str, fields: Fields = "prompt") -> EvalSet:
    """The prompts of a .jsonl or .jsonl.gz file; the set goes by the path as it was given.

    Raises:
        DataError: the file cannot be read, or a row has no prompt; with the line.
    """
    lines = open_lines(Path(path))
    rows = ((place, parse(place, line)) for place, line in lines if line.strip())
    return _gather(str(path), rows, fields)


def _gather(name: str, rows: Iterable[tuple[str, Mapping[str, Any]]], fields: Fields) -> EvalSet:
    prompts = []
    for place, row in rows:
        prompts.append("\n".join(turns_at(place, row, fields)))
    if not any(prompt.strip() for prompt in prompts):
        what = "no text in any of its prompts" if prompts else "no rows"
        raise DataError(f"{name} has {what}, so nothing can be compared with it")
    return EvalSet(name, prompts)


def turns_at(place: str, row: Mapping[str, Any], fields: Fields) -> list[str]:
    """`user_turns`, whose errors name the place."""
    try:
        return user_turns(row, fields)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except RecursionError:
        raise DataError(f"{place}: the row is nested too deeply to be read") from None
