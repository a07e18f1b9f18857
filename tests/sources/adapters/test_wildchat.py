"""WildChat's conversations by model, language and toxicity."""

from __future__ import annotations

import pytest

from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.wildchat import WildChat

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
RAW = {
    "model": "gpt-4-0314",
    "language": "English",
    "toxic": False,
    "conversation": [turn | {"toxic": False, "redacted": False} for turn in TURNS],
}


def test_only_role_and_text_are_kept() -> None:
    assert WildChat(model="gpt-4", language="English")(RAW) == [{"messages": TURNS}]


@pytest.mark.parametrize(
    ("options", "change", "says"),
    [
        ({"model": "gpt-4"}, {"model": "gpt-3.5-turbo"}, "another model"),
        ({"language": "German"}, {}, "another language"),
        ({}, {"toxic": True}, "toxic"),
    ],
)
def test_rows_left_out(options: dict, change: dict, says: str) -> None:
    with pytest.raises(LeftOut, match=says):
        WildChat(**options)(RAW | change)


def test_toxic_rows_on_request() -> None:
    assert WildChat(toxic=True)(RAW | {"toxic": True}) == [{"messages": TURNS}]
