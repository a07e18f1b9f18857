"""What is trained, proven by the text itself: for any conversation and any shipped template."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.tokens import IGNORE, Tokenizer, load_template, template_names
from posttrain.tokens.spans import Marks, conversation_spans, find_marks
from posttrain.tokens.template import ChatTemplate

ENDS = {
    "tulu": "</s>",
    "zephyr": "</s>",
    "mistral": "</s>",
    "chatml": "<|im_end|>",
    "llama-3": "<|eot_id|>",
}
LEADS = {"mistral": " "}
CALL = {"id": "abcdefghi", "function": {"name": "f", "arguments": {}}}
said = st.text(max_size=12) | st.sampled_from(["", " a ", "\nb\n\n", "</s>", "<|eot_id|>", "é🙂"])
flags = st.sampled_from([None, None, True, False])


@st.composite
def conversations(draw: Any) -> list[dict[str, Any]]:
    """Questions and answers; some with a system turn, tool turns and turns not to be trained."""
    turns: list[dict[str, Any]] = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(said)})
    for _ in range(draw(st.integers(1, 4))):
        turns.append({"role": "user", "content": draw(said)})
        if draw(st.integers(0, 3)) == 0:
            turns.append({"role": "assistant", "content": "", "tool_calls": [CALL]})
            turns.append({"role": "tool", "content": draw(said), "tool_call_id": "abcdefghi"})
        answer: dict[str, Any] = {"role": "assistant", "content": draw(said)}
        if (flag := draw(flags)) is not None:
            answer["train"] = flag
        turns.append(answer)
    return turns


def with_template(tokenizer: Any, text: str) -> Any:
    other = copy.copy(tokenizer)
    other.chat_template = text
    return other


def template_of(name: str) -> ChatTemplate:
    return ChatTemplate(load_template(name), {"eos_token": "</s>", "bos_token": "<s>"})


def marks_of(template: ChatTemplate) -> Marks:
    return find_marks(template, "</s>", ["</s>", "<|eot_id|>", "<|im_end|>", "<|im_start|>"])


def plain_spans(
    template: ChatTemplate, messages: list[dict[str, Any]], end: str
) -> tuple[str, list[tuple[int, int]]]:
    """Every prefix rendered twice: with the header of the answer, and with the answer."""
    turns = [{k: v for k, v in m.items() if k != "train"} for m in messages]
    text, spans = template.render(turns), []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("train") is False:
            continue
        before = template.render(turns[:i], generation_prompt=True)
        after = template.render(turns[: i + 1])
        assert after.startswith(before)
        stop = after.rindex(end) + len(end)
        assert text[:stop] == after[:stop]
        spans.append((len(before), stop))
    return text, spans


@pytest.mark.parametrize("name", sorted(ENDS))
def test_what_stands_around_an_answer(name: str) -> None:
    assert marks_of(template_of(name)) == Marks(LEADS.get(name, ""), ENDS[name], "</s>")


def test_the_end_of_a_turn_that_is_no_special_token() -> None:
    text = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    text += "{% if add_generation_prompt %}assistant: {% endif %}"
    template = ChatTemplate(text, {})
    assert find_marks(template, "</s>", ["<|im_end|>"]) == Marks("", "\n\n", "</s>")
    chatml = ChatTemplate(load_template("chatml"), {})
    assert find_marks(chatml, "</s>", ["</s>"]).end == "<|im_end|>"
    refusing = ChatTemplate("{{ raise_exception('never') }}", {})
    assert find_marks(refusing, "</s>", []) == Marks(eos="</s>")


@pytest.mark.parametrize("name", sorted(ENDS))
@settings(max_examples=80, deadline=None)
@given(messages=conversations())
def test_spans_are_those_of_the_plain_way(name: str, messages: list[dict[str, Any]]) -> None:
    template = template_of(name)
    if name == "tulu":
        messages = [m for m in messages if m["role"] != "tool" and "tool_calls" not in m]
    text, spans = conversation_spans(template, marks_of(template), messages)
    assert (text, spans) == plain_spans(template, messages, ENDS[name])
    trained = [m for m in messages if m["role"] == "assistant" and m.get("train") is not False]
    for message, (a, b) in zip(trained, spans, strict=True):
        if "tool_calls" in message:
            assert '"name": "f"' in text[a:b] and text[a:b].endswith(ENDS[name])
        else:
            assert text[a:b] == LEADS.get(name, "") + message["content"] + ENDS[name]


@pytest.mark.parametrize("name", sorted(ENDS))
@pytest.mark.parametrize("family", ["gpt2", "llama3", "unknown words"])
@settings(max_examples=25, deadline=None)
@given(messages=conversations())
def test_the_decoded_mask_is_the_answers(
    name: str, family: str, tokenizers: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    """A header's newlines may merge with an answer's: such tokens alone may be left out."""
    tokenizer = with_template(tokenizers[family], load_template(name))
    if name == "tulu":
        messages = [m for m in messages if m["role"] != "tool" and "tool_calls" not in m]
    mine = Tokenizer(tokenizer, max_length=4096)
    row = mine.each("conversation", [{"messages": messages}])[0]
    spans = conversation_spans(mine.template, mine.marks, messages)
    wanted = [spans[0][a:b] for a, b in spans[1]]
    if isinstance(row, DataError):
        assert not wanted or "surrogate" in str(row)
        return
    text = tokenizer.decode(row["input_ids"])
    assert text == spans[0]
    trained = runs(row["input_ids"], [label != IGNORE for label in row["labels"]])
    for tokens, answer in zip(trained, wanted, strict=True):
        got = tokenizer.decode(tokens)
        missing = answer[: len(answer) - len(got)]
        assert answer == missing + got
        assert not missing.strip()


def runs(ids: list[int], flags: list[bool]) -> list[list[int]]:
    out: list[list[int]] = []
    before = False
    for token, flag in zip(ids, flags, strict=True):
        if flag and not before:
            out.append([])
        if flag:
            out[-1].append(token)
        before = flag
    return out


TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"},
]


def texts(name: str, messages: list[dict[str, Any]], **options: bool) -> list[str]:
    template = template_of(name)
    text, spans = conversation_spans(template, marks_of(template), messages, **options)
    return [text[a:b] for a, b in spans]


@pytest.mark.parametrize("name", sorted(ENDS))
def test_options(name: str) -> None:
    lead, end = LEADS.get(name, ""), ENDS[name]
    assert texts(name, TALK) == [f"{lead}A1{end}", f"{lead}A2{end}"]
    assert texts(name, TALK, last_turn_only=True) == [f"{lead}A2{end}"]
    assert texts(name, TALK, train_on_prompt=True) == [template_of(name).render(TALK)]
    silent = [*TALK[:4], {**TALK[4], "train": False}]
    assert texts(name, silent) == [f"{lead}A1{end}"]
    assert texts(name, silent, last_turn_only=True) == []


def test_what_is_never_trained_even_with_the_prompt() -> None:
    silent = [*TALK[:2], {**TALK[2], "train": False}, *TALK[3:]]
    assert texts("chatml", silent, train_on_prompt=True) == [
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n",
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n",
    ]
    used = [
        TALK[1],
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "secret"},
        TALK[2],
    ]
    assert "secret" not in "".join(texts("chatml", used, train_on_prompt=True))
    assert "secret" not in "".join(texts("chatml", used))
    assert texts("llama-3", used)[0] == '{"name": "f", "parameters": {}}<|eot_id|>'


def test_an_answer_without_a_prompt() -> None:
    with pytest.raises(DataError, match="starts with an answer"):
        texts("tulu", TALK[2:])
    assert texts("tulu", TALK[2:], last_turn_only=True) == ["A2</s>"]
    assert texts("tulu", [{**TALK[2], "train": False}, *TALK[3:]]) == ["A2</s>"]


def test_a_conversation_without_end() -> None:
    with pytest.raises(DataError, match="more than 4000 turns"):
        texts("tulu", TALK[1:] * 1001)


def test_thinking_that_is_taken_out_of_earlier_turns_is_noticed() -> None:
    text = (
        "{% for m in messages %}{{ m.role }}:"
        "{{ m.content if loop.last else m.content.split('</think>')[-1] }}</s>"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    template = ChatTemplate(text, {})
    answers = ["<think>x</think>A1", "<think>y</think>A2"]
    talk = [{**m} for m in TALK]
    talk[2]["content"], talk[4]["content"] = answers
    with pytest.raises(DataError, match="differently once others follow it"):
        conversation_spans(template, marks_of(template), talk)
    got, spans = conversation_spans(template, marks_of(template), talk, last_turn_only=True)
    assert [got[a:b] for a, b in spans] == ["<think>y</think>A2</s>"]


def test_every_template_is_covered() -> None:
    assert sorted(ENDS) == template_names()
