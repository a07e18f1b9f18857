from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers.string_match import StringMatch, normalise


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Eiffel\nTower.", "eiffel tower"),
        ('"Yes!"', "yes"),
        ("**Berlin**", "berlin"),
        ("STRASSE", "straße"),
        ("A", "a"),
        ("\uff11\uff12", "12"),
    ],
)
def test_what_does_not_count(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)


@pytest.mark.parametrize(
    ("text", "other"), [("-5", "5"), (".5", "5"), ("f(x)", "f(x"), ("a b", "ab"), ("cats", "cat")]
)
def test_what_counts(text: str, other: str) -> None:
    assert normalise(text) != normalise(other)


def test_the_last_answer_tag_is_read() -> None:
    assert StringMatch()("I think <answer> Paris </answer> is it", "paris").score == 1.0
    assert StringMatch()("<answer>Rome</answer> no, <answer>Paris", "paris").score == 1.0
    assert StringMatch()("Paris <answer>Rome</answer>", "paris").score == 0.0


@pytest.mark.parametrize(
    ("truth", "accepted", "refused"),
    [
        (["NYC", "New York"], "new york", "York"),
        ('["NYC", "New York"]', "nyc", '["NYC", "New York"]'),
        ("[1, 2]", "[1, 2]", "1"),
        ("[the bracket", "[the bracket", "bracket"),
        (42, "42", "43"),
        ('"quoted"', "quoted", "quote"),
    ],
)
def test_forms_of_the_ground_truth(truth: Any, accepted: str, refused: str) -> None:
    assert StringMatch()(accepted, truth).score == 1.0
    assert StringMatch()(refused, truth).score == 0.0


@pytest.mark.parametrize("truth", ['""', "...", ["yes", ""], [None]])
def test_a_ground_truth_without_text_is_unreadable(truth: Any) -> None:
    with pytest.raises(VerifierError, match="string_match needs a text"):
        StringMatch().check_ground_truth(truth)
