"""Edges of the constraints that the tables of `ifeval` and `ifeval_old` do not reach."""

from __future__ import annotations

import pytest

from posttrain.verifiers.constraints.case import capital_word_frequency
from posttrain.verifiers.constraints.combination import divided, two_responses
from posttrain.verifiers.constraints.content import number_placeholders
from posttrain.verifiers.constraints.format import json_format, title
from posttrain.verifiers.constraints.length import nth_paragraph_first_word, number_paragraphs
from posttrain.verifiers.constraints.relation import holds, tenth
from posttrain.verifiers.constraints.sentences import count_sentences
from posttrain.verifiers.constraints.treebank import tokens


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Hello there. How are you?", 2),
        ("Mr. Smith went to St. Louis. He ate.", 2),
        ("It costs 3.50 dollars. Ok!", 2),
        ("1. Apples\n2. Pears.", 3),  # as Punkt counts: 1. | Apples 2. | Pears.
        ("a. Apples\nb. Pears.", 1),
        ("no stop", 1),
        ("", 0),
        ("... !!", 0),
        ("Wait... what? Yes!", 2),
        ("Wait... What? Yes!", 3),
        ("this is one. this is two.", 2),
        ("e.g. apples, etc. are good. Fine.", 2),
        ("We left at 5 p.m. They stayed.", 2),
        ("J. K. Rowling wrote it.", 1),
        ("This is sentence A. The next is B.", 2),
        ('He said "Go!" Then he left.', 2),
        ("今天好。明天也好。", 2),
        ("**Bold.** Next one.", 2),
        ("What?! No.", 2),
    ],
)
def test_count_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_counting_stops_at_the_limit() -> None:
    assert count_sentences("One. Two. Three.", limit=2) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it's 3.5!", "Do|n't|stop|,|it|'s|3.5|!"),
        ("A well-known U.S. town.", "A|well-known|U.S.|town|."),
        ("**Bold** and (so on)...", "*|*|Bold|*|*|and|(|so|on|)|..."),
        ("at 3:30, A/B: $5", "at|3:30|,|A/B|:|$|5"),
        ("I cannot 'go' -- the dogs' way", "I|can|not|'|go|'|--|the|dogs|'|way"),
        ("he said “no”", "he|said|“|no|”"),
    ],
)
def test_tokens_are_treebanks(text: str, expected: str) -> None:
    assert tokens(text) == expected.split("|")


def test_capital_words_are_tokens() -> None:
    text = "I'M at NASA: A/B, COVID-19 and Go."  # I, 'M, NASA, A/B, COVID-19
    assert capital_word_frequency(text, 5, "at least")
    assert not capital_word_frequency(text, 6, "at least")


def test_a_placeholder_is_whatever_stands_in_brackets_on_a_line() -> None:
    assert number_placeholders("[ ] [a [b] c] [] [d\n]", 3)
    assert not number_placeholders("[ ] [a [b] c] [] [d\n]", 4)


def test_relations() -> None:
    assert holds(3, "at least", 3) and not holds(2, "at least", 3)
    assert holds(2, "less than", 3) and not holds(3, "less than", 3)
    assert holds(3, "at most", 3) and not holds(4, "at most", 3)
    assert holds(4, "around", 3, slack=1) and not holds(5, "around", 3, slack=1)
    assert (tenth(3), tenth(100)) == (1, 10)
    with pytest.raises(ValueError, match="exactly"):
        holds(3, "exactly", 3)


def test_dividers_at_the_ends_do_not_count() -> None:
    assert divided("***a***b***", "***") == ["a", "b"]
    assert divided("***", "***") == []
    assert divided("a", "***") == ["a"]
    assert divided("a******b", "***") == ["a", "", "b"]
    assert not number_paragraphs("", 1)
    assert two_responses("****** a ****** b ******")


def test_json_is_strict_json() -> None:
    assert json_format("```\n[1]\n```")
    assert json_format('"text"')
    assert not json_format("NaN")
    assert not json_format("[" * 100_000)
    assert not json_format("")


def test_a_title_stays_on_its_line() -> None:
    assert title("<<a < b>>")
    assert not title("<<a\nb>>")
    assert not title(">>a<<")


def test_blank_paragraphs_are_not_counted() -> None:
    text = "\n\nOne.\n\n\n\nTwo."
    assert nth_paragraph_first_word(text, 2, 2, "TWO")
    assert not nth_paragraph_first_word(text, 2, 3, "two")
    assert not nth_paragraph_first_word("", 1, 1, "two")
