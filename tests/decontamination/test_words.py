"""Words as strings and as hashes: the same words, in the same places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.decontamination.words import WORD, fold, hash_windows, spans, word_hashes, words

MIXED = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("aB_9 .,'\n\u2019İΣςß日本語のテเราမក\U00020000\U000e0100\ud800éÉ한국"),
    ),
    max_size=60,
)


def test_words_by_hand() -> None:
    assert words("Janet\u2019s ducks: 16 eggs/day; x_1=$2.50!") == [
        *("janet", "s", "ducks", "16", "eggs", "day", "x_1", "2", "50"),
    ]
    assert words("日本語 GPT4モデル") == ["日", "本", "語", "gpt4", "モ", "デ", "ル"]
    assert words("Привет, МИР") == ["привет", "мир"]
    assert words("한국어 문장") == ["한국어", "문장"]
    assert words(" -- \n") == []


def test_folding_keeps_every_character_in_its_place() -> None:
    assert fold("ABC\u0391\u03a3 \u0130x") == "abc\u03b1\u03c3 \u0130x"


@given(MIXED)
@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
def test_words_are_those_of_a_reader_of_single_letters(
    by_letter: Callable[[str], list[str]], text: str
) -> None:
    assert words(text) == by_letter(text)


@given(MIXED)
@settings(max_examples=300, deadline=None)
def test_hashes_stand_for_the_words_in_their_places(text: str) -> None:
    text = text.replace("\x00", " ")
    hashes, starts = word_hashes(text)
    assert starts.tolist() == [start for start, _ in spans(text)]
    alone = [word_hashes(word)[0].tolist() for word in words(text)]
    assert hashes.tolist() == [one[0] for one in alone]
    assert [fold(text[a:b]) for a, b in spans(text)] == words(text)


def test_different_words_have_different_hashes() -> None:
    vocabulary = [f"{a}{i}" for i in range(3000) for a in ("", "a", "b", "ab", "ba", "aa")]
    vocabulary += ["a", "b", "ab", "ba", "aa", "aaa", "abc", "acb", "cab"]
    hashes, _ = word_hashes(" ".join(vocabulary))
    assert len(set(hashes.tolist())) == len(set(vocabulary)) == len(vocabulary)


def test_a_turn_break_is_a_word_that_no_text_has() -> None:
    hashes, starts = word_hashes("ab\x00cd")
    assert starts.tolist() == [0, 2, 3]
    assert hashes[1] not in word_hashes("ab cd")[0]


def test_no_letter_lies_beyond_the_table() -> None:
    beyond = (chr(code) for code in range(0x323B0, 0x110000))
    assert not any(WORD.match(char) for char in beyond)


def test_ascii_and_wide_texts_are_numbered_alike() -> None:
    narrow, wide = word_hashes("one Two 3")[0], word_hashes("one Two 3 é")[0]
    assert narrow.tolist() == wide[:3].tolist()


def test_long_texts() -> None:
    text = "word " * 80_000  # longer than the first table of powers
    hashes, _ = word_hashes(text)
    assert len(hashes) == 80_000
    assert set(hashes.tolist()) == set(word_hashes("word")[0].tolist())


def test_windows() -> None:
    hashes = word_hashes("a b c a b c")[0]
    pairs = hash_windows(hashes, 2)
    assert len(pairs) == 5
    assert np.array_equal(pairs[:2], pairs[3:])
    assert len(set(pairs.tolist())) == 3
    assert hash_windows(hashes, 1).tolist() == hashes.tolist()
    assert len(hash_windows(hashes, 7)) == 0
    assert len(word_hashes("")[0]) == len(word_hashes("...")[0]) == 0
