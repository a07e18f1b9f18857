"""The same thing said twice."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.repeated_turns import RepeatedTurns

LONG = "Tell me more about the whales."


def chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["Hi", "Hello", "Bye", "So long"], None),
        (["Continue.", "One", "Continue.", "Two"], None),
        ([LONG, "One", f" {LONG}\n", "Two"], "a turn is repeated (user)"),
        (["One", LONG, "Two", LONG], "a turn is repeated (assistant)"),
        (["Hi", "Hi"], "an answer repeats the user's turn"),
        ([LONG, "So", "Ask me something.", LONG], None),  # another's words, not the turn before
    ],
)
def test_repeats(turns: list[str], reason: str | None) -> None:
    assert RepeatedTurns()(chat(*turns)) == reason


def test_shorter_repeats_when_asked() -> None:
    row = chat("Continue.", "One", "Continue.", "Two")
    assert RepeatedTurns(min_characters=1)(row) == "a turn is repeated (user)"


def test_the_answers_of_a_pair_are_apart() -> None:
    ask, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": LONG}
    pair = {"prompt": [ask], "chosen": [answer], "rejected": [answer]}
    assert RepeatedTurns()(pair) is None
    echo = {"role": "assistant", "content": "Why?"}
    assert RepeatedTurns()({**pair, "rejected": [echo]}) == "an answer repeats the user's turn"
