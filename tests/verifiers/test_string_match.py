from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers.string_match import StringMatch, normalise, plain


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


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello, world!", "hello world"),
        ("- Sara Palin", "sara palin"),
        ("(the) End of the Sun.", "end of sun"),
        ("J. Lo's", "j los"),
        ("$1,000", "1000"),
        ("\u2212 5", "5"),
        ("O\u2019Neill", "O'Neill"),
    ],
)
def test_punctuation_and_articles_do_not_count(text: str, same: str) -> None:
    assert plain(text) == plain(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("-5", "5"),
        ("3.5", "35"),
        (".5", "5"),
        ("2x+3", "2x-3"),
        ("x+y", "x-y"),
        ("Vitamin A", "vitamin"),
        ("+", "-"),
    ],
)
def test_signs_and_names_count(text: str, other: str) -> None:
    assert plain(text) != plain(other)


def test_string_matcher_asks_for_a_tag() -> None:
    strict = StringMatch(tagged=True)
    assert strict("<answer>The Paris!</answer>", "paris").score == 1.0
    assert strict("Paris", "paris").score == 0.0
    assert strict("<answer>Paris", "paris").score == 0.0
    assert StringMatch()("Paris", "paris").score == 1.0


def test_a_long_answer_is_not_read() -> None:
    assert "too long" in StringMatch()("a" * 30_000, "a").reason
    assert StringMatch()("a" * 30_000, "a" * 30_000).score == 1.0


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
        ("[the bracket", "(bracket)", "brackets"),
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
