"""Rows of any shape, read alike."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters import FILTERS, Flag, SetFilter
from posttrain.filters.base import check_option, contents, conversations, split_words, turns


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK, GOOD, BAD = turn("user", "Why?"), turn("assistant", "So."), turn("assistant", "No.")
CHAT: dict[str, Any] = {"messages": [turn("system", "Be kind."), ASK, GOOD], "tools": [{"a": 1}]}
PAIR: dict[str, Any] = {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD], "source": "x"}
PROBLEM: dict[str, Any] = {"prompt": [ASK], "ground_truth": "4", "verifier": "math"}
TEXT: dict[str, Any] = {"text": "Once.", "source": "x"}


@pytest.mark.parametrize(
    ("row", "every", "chats", "both", "prompt", "answer"),
    [
        (CHAT, ["Be kind.", "Why?", "So."], 1, ["Why?", "So."], ["Why?"], ["So."]),
        (PAIR, ["Why?", "So.", "No."], 2, ["Why?", "So."], ["Why?"], ["So."]),
        (PROBLEM, ["Why?"], 1, ["Why?"], ["Why?"], []),
        (TEXT, ["Once."], 1, ["Once."], ["Once."], ["Once."]),
    ],
)
def test_every_shape_of_row(
    row: dict[str, Any],
    every: list[str],
    chats: int,
    both: list[str],
    prompt: list[str],
    answer: list[str],
) -> None:
    assert [m["content"] for m in turns(row)] == every
    assert len(conversations(row)) == chats
    assert contents(row) == both
    assert contents(row, "prompt") == prompt
    assert contents(row, "answer") == answer


def test_the_two_conversations_of_a_pair() -> None:
    assert conversations(PAIR) == [[ASK, GOOD], [ASK, BAD]]


def test_words_of_several_scripts() -> None:
    assert split_words("Don't say 3.5 to_day") == ["don", "t", "say", "3", "5", "to", "day"]
    assert split_words("a_b, c!", signs=True) == ["a", "_", "b", ",", "c", "!"]
    assert split_words("Größe ΑΒΓ") == ["größe", "αβγ"]
    assert split_words("AI是什么?") == ["ai", "是", "什", "么"]
    assert split_words("カナ 한국어") == ["カ", "ナ", "한국어"]
    assert split_words(" \n") == []


def test_options_are_checked() -> None:
    check_option("fields", "all", ("all", "prompt"))
    with pytest.raises(ValueError, match="`fields` must be one of all, prompt, got 'answers'"):
        check_option("fields", "answers", ("all", "prompt"))


def test_a_flag_is_a_reason() -> None:
    assert Flag("a reason") == "a reason"
    assert isinstance(Flag("a reason"), str)


def test_which_filters_compare_rows() -> None:
    made = {
        name: rule(**({"min": 1} if name == "length" else {})) for name, rule in FILTERS.items()
    }
    sets = {name for name, rule in made.items() if isinstance(rule, SetFilter)}
    assert sets == {"exact_duplicates", "near_duplicates", "rouge_novelty"}
