"""Where the answers stand in the text that a chat template renders.

What is trained is found in the rendered text, not in token counts: an assistant turn's span runs
from where its generation prompt ends to the end of its end-of-turn mark. A token is trained when it
lies inside a span, so the mask can be proven by decoding it, whatever the template or tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.tokens.template import ChatTemplate, Turns, plain_turns

Span = tuple[int, int]  # characters of the rendered text, the end not included
Rendered = tuple[str, list[Span]]
PLAIN_TURN = {"role", "content"}
MOST_TURNS = 4000  # the text is rendered once per answer, so time grows with their square
REWRITES = "the chat template rewrites earlier turns, so the answer cannot be located in the text"


@dataclass(frozen=True)
class Marks:
    """What a template writes around an answer.

    Attributes:
        lead: between the generation prompt and the answer (a space in Mistral's).
        end: from the answer to its end-of-turn mark, the mark included: EOS where the template
            writes it, else the first special token, else all that follows the answer.
        eos: the tokenizer's EOS.
    """

    lead: str = ""
    end: str = ""
    eos: str = ""

    def end_of(self, text: str, start: int) -> int:
        """Where the last answer of `text` ends, mark included."""
        for mark in (self.end, self.eos):
            at = text.rfind(mark) if mark else -1
            if at >= start:
                return at + len(mark)
        return len(text)


def find_marks(template: ChatTemplate, eos: str, special: Iterable[str]) -> Marks:
    """Look at how a template renders one answer.

    Args:
        eos: the tokenizer's EOS.
        special: texts that are one token each, whatever surrounds them.
    """
    answer = "Answer"
    asked = [{"role": "user", "content": "Question"}]
    try:
        before = template.render(asked, generation_prompt=True)
        after = template.render([*asked, {"role": "assistant", "content": answer}])
    except DataError:  # a template that wants more than one question: every row is asked in full
        return Marks(eos=eos)
    if not after.startswith(before) or answer not in after[len(before) :]:
        return Marks(eos=eos)
    lead, _, tail = after[len(before) :].partition(answer)
    found = [(tail.find(mark), -len(mark), mark) for mark in special if mark in tail]
    if eos in tail:
        return Marks(lead, tail[: tail.index(eos) + len(eos)], eos)
    if found:
        at, _, mark = min(found)
        return Marks(lead, tail[: at + len(mark)], eos)
    return Marks(lead, tail.rstrip() or tail, eos)


def untrained(message: Mapping[str, Any]) -> bool:
    """A turn that is never trained, whatever the options say."""
    return message["role"] == "tool" or message.get("train") in (False,)


def conversation_spans(
    template: ChatTemplate,
    marks: Marks,
    messages: Turns,
    tools: Any = None,
    *,
    last_turn_only: bool = False,
    train_on_prompt: bool = False,
) -> Rendered:
    """A conversation as text, and the characters of it that are trained: answers with their end.

    The whole is rendered once, and once more up to each answer: that is the text from which the
    model will have to go on, so an answer counts only where it follows exactly that text.

    Raises:
        DataError: the template refuses the turns, or an answer cannot be located.
    """
    if len(messages) > MOST_TURNS:
        raise DataError(f"the conversation has more than {MOST_TURNS} turns; split it")
    turns = plain_turns(messages)
    text = template.render(turns, tools)
    if train_on_prompt:
        return text, all_but(template, messages, turns, tools, text)
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if last_turn_only:
        answers = answers[-1:]
    return text, [
        answer_span(template, marks, turns, i, tools, text)
        for i in answers
        if not untrained(messages[i])
    ]


def answer_span(
    template: ChatTemplate,
    marks: Marks,
    turns: list[dict[str, Any]],
    i: int,
    tools: Any,
    text: str,
    before: str | None = None,
) -> Span:
    """Characters of answer `i` and its end in `text`, the rendering of all turns.

    Args:
        before: the turns up to `i` with the generation prompt, where it is known.

    Raises:
        DataError: the answer has no turn before it, or does not follow its generation prompt.
    """
    if i == 0:
        raise DataError("the conversation starts with an answer, so it has no prompt")
    if before is None:
        before = template.render(turns[:i], tools, generation_prompt=True)
    start, turn = len(before), turns[i]
    if not text.startswith(before):
        raise DataError(REWRITES)
    if marks.end and turn.keys() <= PLAIN_TURN:
        whole = f"{marks.lead}{turn.get('content', '')}{marks.end}"
        if text.startswith(whole, start):
            return start, start + len(whole)
    after = text if i == len(turns) - 1 else template.render(turns[: i + 1], tools)
    if not after.startswith(before):
        raise DataError(REWRITES)
    end = marks.end_of(after, start)
    if not text.startswith(after[:end]):
        raise DataError("the chat template renders a turn differently once others follow it")
    return start, end


def all_but(
    template: ChatTemplate, messages: Turns, turns: list[dict[str, Any]], tools: Any, text: str
) -> list[Span]:
    """Everything but the turns that are never trained."""
    spans, start = [], 0
    for i, message in enumerate(messages):
        if not untrained(message):
            continue
        before = template.render(turns[:i], tools) if i else ""
        after = template.render(turns[: i + 1], tools)
        if not (after.startswith(before) and text.startswith(after)):
            raise DataError("a turn that must not be trained cannot be located in the text")
        spans.append((start, len(before)))
        start = len(after)
    return [(a, b) for a, b in [*spans, (start, len(text))] if a < b]


def pair_spans(
    template: ChatTemplate, marks: Marks, row: Mapping[str, Any], sides: Iterable[str]
) -> list[Rendered]:
    """Each side of a pair as text that ends with its answer, and the answer's characters.

    Raises:
        DataError: a side has more than one turn, or an answer cannot be located.
    """
    prompt, tools = plain_turns(row["prompt"]), row.get("tools")
    before = template.render(prompt, tools, generation_prompt=True)
    out: list[Rendered] = []
    for side in sides:
        if len(row[side]) != 1:
            raise DataError("the two sides differ before their last turn")
        turns = [*prompt, *plain_turns(row[side])]
        text = template.render(turns, tools)
        span = answer_span(template, marks, turns, len(turns) - 1, tools, text, before)
        out.append((text[: span[1]], [span]))
    return out
