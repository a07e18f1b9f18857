"""Where a completion may state its answer, in linear time on any input."""

from __future__ import annotations

import re

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_SENTENCE = re.compile(r"final answer is\s*:?", re.IGNORECASE)
_STATED = re.compile(
    r"\banswers?\b[ \t*_]*(?::[ \t*_]*|(?:is|are|must be|should be|would be)\b[ \t]*:?[ \t*_]*)",
    re.IGNORECASE,
)
_STOP = re.compile(r"\n|\.(?=\s|\Z)")
_CLOSING = re.compile(r"i hope it is correct|\n", re.IGNORECASE)
_DISPLAY = re.compile(r"\\[\[\]()]|\$\$")


def candidates(text: str) -> list[str]:
    """The possible answers of a completion: its last box and its `final answer is` sentence;
    failing both, what it calls the answer and the last text between dollar signs; failing these,
    all of it.
    """
    found = [last_boxed(text), final_sentence(text)]
    if not any(found):
        found = [stated(text), last_dollars(text)]
    if not any(found):
        found = [text]
    answers = (candidate.strip() for candidate in found if candidate)
    return list(dict.fromkeys(answer for answer in answers if answer))


def last_boxed(text: str) -> str | None:
    """The inside of the last `\\boxed{...}` or `\\fbox{...}`, braces matched; `\\boxed 5` too."""
    command = max(("\\boxed", "\\fbox"), key=text.rfind)
    start = text.rfind(command)
    if start < 0:
        return None
    start += len(command)
    while text[start : start + 1] == " ":
        start += 1
    if text[start : start + 1] != "{":
        inside, closed, _ = text[start : start + 100].partition("$")
        return (inside if closed else inside.partition("\n")[0].partition(" ")[0]).strip() or None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start + 1 : brace.start()]
    return None


def final_sentence(text: str) -> str | None:
    """What follows the last `final answer is`, up to `I hope it is correct` or the line's end."""
    matches = list(_SENTENCE.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :].lstrip()
    closing = _CLOSING.search(rest)
    sentence = rest[: closing.start() if closing else len(rest)]
    return sentence.rstrip(" \t\r*.").lstrip(" \t*") or None


def stated(text: str) -> str | None:
    """What follows the last `answer is` or `Answer:`, up to the end of its sentence or line; of
    that the mathematics, where dollar signs enclose some.
    """
    matches = list(_STATED.finditer(text))
    if not matches:
        return None
    rest = _DISPLAY.sub("$", text[matches[-1].end() :].lstrip().replace("\\$", ""))
    stop = _STOP.search(rest)
    sentence = rest[: stop.start() if stop else len(rest)]
    _, opened, inside = sentence.partition("$")
    inside, closed, _ = inside.partition("$")
    return (inside if opened and closed else sentence).strip(" \t\r*_$") or None


def last_dollars(text: str) -> str | None:
    """The text between the last two dollar signs; `\\(...\\)` and `\\[...\\]` count as such."""
    text = _DISPLAY.sub("$", text.replace("\\$", ""))
    before, opened, _ = text.rpartition("$")
    _, closed, inside = before.rpartition("$")
    return inside.strip() or None if opened and closed else None
