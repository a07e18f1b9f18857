"""Many turns as one text, and the way back."""

from __future__ import annotations

import numpy as np

from posttrain.decontamination.blocks import BLOCK, blocks, hash_texts
from posttrain.decontamination.words import word_hashes


def test_words_find_their_turn_and_row() -> None:
    batch = [["one two", "three"], [], ["", "four five six"], ["..."]]
    (block,) = blocks(batch)
    assert block.rows.tolist() == [0, 0, 2, 2, 3]
    assert block.begins.tolist() == [0, 3, 5, 6, 10]
    assert (block.ends - block.begins).tolist() == [2, 1, 0, 3, 0]
    for turn, begin, end in zip(block.turns, block.begins, block.ends, strict=True):
        assert block.hashes[begin:end].tolist() == word_hashes(turn)[0].tolist()
    assert block.row_of(np.array([0, 1, 3, 6, 8])).tolist() == [0, 0, 0, 2, 2]


def test_a_break_inside_a_text_only_separates() -> None:
    (block,) = blocks([["one\x00two", "three"]])
    assert (block.ends - block.begins).tolist() == [2, 1]


def test_a_row_is_never_cut() -> None:
    long = "word " * (BLOCK // 5)
    made = list(blocks([["a"], [long, long], ["b"], ["c"]]))
    assert [sorted(set(block.rows.tolist())) for block in made] == [[0, 1], [2, 3]]
    assert list(blocks([])) == list(blocks([[], []])) == []


def test_texts_one_after_another() -> None:
    texts = ["one two", "", "three\x00four", "?", "five"]
    lengths, hashes = hash_texts(texts)
    assert lengths.tolist() == [2, 0, 2, 0, 1]
    assert hashes.tolist() == word_hashes("one two three four five")[0].tolist()
    assert [len(part) for part in hash_texts([])] == [0, 0]
