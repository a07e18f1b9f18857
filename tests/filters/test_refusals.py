"""Answers that decline."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.refusals import Refusals

REFUSES, MODEL = "an answer refuses", "an answer speaks of itself as a model"


def answer(text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "I'm sorry, but I can't do this."},
            {"role": "assistant", "content": text},
        ]
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't help with that.", REFUSES),
        ("I\u2019m sorry, but I can\u2019t help with that.", REFUSES),
        ("I apologize, but I am unable to translate this.", REFUSES),
        ("Unfortunately, I do not have the file.", REFUSES),
        ("I cannot assist with this request.", REFUSES),
        ("As an AI language model, I have no favourite.", MODEL),
        ("I'm just an AI assistant, but here you are.", MODEL),
        ("I'm sorry to hear that. You can try again.", None),
        ("I cannot praise this book enough.", None),
        ("She said: we can't. As an AI engineer she would know.", None),
        ("Plain words. " * 30 + "I'm sorry, but I can't help.", None),  # far into the answer
    ],
)
def test_refusals(text: str, reason: str | None) -> None:
    assert Refusals()(answer(text)) == reason


def test_a_rejected_answer_may_refuse() -> None:
    say = [{"role": "assistant", "content": text} for text in ("Paris.", "I cannot help with it.")]
    pair = {"prompt": [{"role": "user", "content": "Where?"}], "chosen": say[:1]}
    assert Refusals()({**pair, "rejected": say[1:]}) is None
    assert Refusals()({**pair, "chosen": say[1:], "rejected": say[:1]}) == REFUSES
    assert Refusals()({"text": "I'm sorry, but I can't."}) is None
