"""Too short or too long, per unit and role."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.length import Length

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "Good."},
        {"role": "assistant", "content": "And how are you?"},
    ]
}
PAIR: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "a b"}],
    "chosen": [{"role": "assistant", "content": "c d"}],
    "rejected": [{"role": "assistant", "content": "e f g h"}],
}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min": 11, "max": 11}, None),  # 2 + 3 + 1 + 1 + 4 words
        ({"min": 12}, "fewer than 12 words, got 11"),
        ({"max": 10}, "more than 10 words, got 11"),
        ({"role": "user", "min": 4, "max": 4}, None),
        ({"role": "user", "min": 5}, "fewer than 5 user words, got 4"),
        ({"role": "assistant", "unit": "turns", "min": 3}, "fewer than 3 assistant turns, got 2"),
        ({"unit": "turns", "max": 5}, None),
        ({"unit": "characters", "role": "assistant", "max": 20}, "more than 20 assistant"),
        ({"unit": "characters", "role": "assistant", "max": 21}, None),  # 5 + 16
        ({"per": "turn", "role": "assistant", "min": 2}, "fewer than 2 assistant words, got 1"),
        ({"per": "turn", "min": 1, "max": 4}, None),
        ({"role": "tool", "min": 1}, "fewer than 1 tool words, got 0"),
    ],
)
def test_lengths(options: dict[str, Any], reason: str | None) -> None:
    found = Length(**options)(CHAT)
    assert found is None if reason is None else (found or "").startswith(reason)


def test_both_sides_of_a_pair_and_texts() -> None:
    assert Length(max=6)(PAIR) is None
    assert Length(max=5)(PAIR) == "more than 5 words, got 6"
    assert Length(min=5)(PAIR) == "fewer than 5 words, got 4"
    assert Length(role="assistant", max=3)(PAIR) == "more than 3 assistant words, got 4"
    assert Length(role="user", min=3)({"text": "one two"}) == "fewer than 3 user words, got 2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give `min`, `max` or both"),
        ({"min": 5, "max": 4}, "`max` 4 is below `min` 5"),
        ({"max": 4, "unit": "tokens"}, "`unit` must be one of characters, words, turns"),
        ({"max": 4, "role": "human"}, "`role` must be one of all, system, user, assistant, tool"),
        ({"max": 4, "unit": "turns", "per": "turn"}, "remove `per: turn`"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Length(**options)
