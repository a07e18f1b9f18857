"""Gopher's quality rules, each at its edge."""

from __future__ import annotations

import pytest

from posttrain.filters.gopher_quality import GopherQuality

FINE = "of the people and cars " * 10  # 50 words of 18 / 5 characters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FINE, None),
        (FINE.strip().rsplit(" ", 1)[0], "fewer than 50 words"),
        (FINE * 2001, "more than 100000 words"),
        ("to be a b c " * 10, "mean word length outside 3 to 10"),
        ("of the internationalisation " * 17, None),  # 25 / 3 = 8.3
        ("of the counterrevolutionaries-abroad " * 17, "mean word length outside 3 to 10"),
        (FINE + "# # # # # many", None),  # 5 of 56
        (FINE + "# # # # # # many", "more than 0.1 # per word"),
        (FINE + "so... so... so… so... so... so...", "more than 0.1 ellipses per word"),
        (FINE + "1999 " * 12, None),  # 50 of 62
        (FINE + "1999 " * 13, "fewer than 80% of words have a letter"),
        ("Leute gehen heute Abend nach Hause " * 10, "fewer than 2 common words of English"),
        ("- of the people and cars\n" * 10, "more than 90% of lines are bullets"),
        ("- of the people and cars\n" * 9 + "of the people and cars", None),
        (
            "of the many people and cars...\n" * 4 + "of the people and cars\n" * 6,
            "more than 30% of lines end with an ellipsis",  # 4 of 10, but 4 of 54 words
        ),
    ],
)
def test_rules(text: str, reason: str | None) -> None:
    assert GopherQuality()({"text": text}) == reason


def test_only_the_chosen_turns_are_read() -> None:
    row = {
        "messages": [{"role": "user", "content": FINE}, {"role": "assistant", "content": "Yes."}]
    }
    assert GopherQuality()(row) == "fewer than 50 words"
    assert GopherQuality(fields="prompt")(row) is None
    assert GopherQuality(min_words=0, min_stop_words=0)(row) is None
