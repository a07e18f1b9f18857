"""Answers that announce themselves."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters import Flag
from posttrain.filters.chatty_prefaces import ChattyPrefaces

FOUND = "an answer announces itself"


def answer(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": text}]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sure! Here is the poem:\n\nRoses", True),
        ("Certainly, I'd be glad to. Roses", True),
        ("Here's a poem about roses:\nRoses", True),
        ("Of course! \nRoses", True),
        ("Below is the code you asked for:\n```", True),
        ("Sure.", False),  # the whole answer
        ("Sure footing matters on a mountain.", False),
        ("Here is where the river starts.", False),
        ("Here is the ratio: 3 to 4.", False),  # the answer itself
        ("Roses\nHere is another:\n", False),
    ],
)
def test_prefaces(text: str, found: bool) -> None:
    assert ChattyPrefaces()(answer(text)) == (FOUND if found else None)
    assert ChattyPrefaces()({"text": text}) is None


def test_flags_when_asked() -> None:
    reason = ChattyPrefaces(action="flag")(answer("Sure! Here you are:\nRoses"))
    assert isinstance(reason, Flag)
    assert reason == FOUND
    assert not isinstance(ChattyPrefaces()(answer("Sure! Here you are:\nRoses")), Flag)
