"""Whole prompts."""

from __future__ import annotations

from posttrain.decontamination.exact import Exact


def test_a_turn_must_equal_the_prompt_in_its_words() -> None:
    find = Exact(["What is 2 + 2?", "Hello", "", "what is 2 2"])
    assert find([["what is 2+2"], ["So: what is 2+2"], ["Hi", "HELLO!"], [], [""], ["?!"]]) == [
        {0: 1.0, 3: 1.0},
        {},
        {1: 1.0},
        {},
        {},
        {},
    ]


def test_only_some_prompts() -> None:
    assert Exact(["a b", "c d"], only=[1])([["a b", "c d"]]) == [{1: 1.0}]
    assert Exact(["a b"], only=[])([["a b"]]) == [{}]


def test_words_are_compared_in_order() -> None:
    assert Exact(["one two three"])([["three two one"], ["one two"], ["one two three four"]]) == [
        {},
        {},
        {},
    ]
