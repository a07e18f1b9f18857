"""Pieces of a text have the tokens that the whole text has, whatever stands around them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.tokens import words
from posttrain.tokens.coder import Coder
from posttrain.tokens.words import Words, byte_lengths, cuttable, offsets

CHARACTERS = [*" \n\t\r5a,'sS.{é世\u00a0\u2028🙂</=\u0301\u0338\u037e", "</s>", "'ll", "\n\n"]
SPACED = st.lists(st.sampled_from(CHARACTERS), max_size=30)


def encoded(mine: Words, texts: list[str]) -> list[list[int]]:
    ids, bounds = mine.encode(texts)
    assert bounds[-1] == len(ids)
    return [part.tolist() for part in np.split(ids, bounds[1:-1])]


def parted(mine: Words, *texts: str) -> list[str]:
    data = [text.encode() for text in texts]
    cuts = mine.cuts(b"".join(data), offsets([len(text) for text in data]))
    return [b"".join(data)[a:b].decode() for a, b in pairwise(cuts.tolist())]


@pytest.mark.parametrize("family", ["gpt2", "digits", "llama3", "qwen"])
@settings(max_examples=150, deadline=None)
@given(some=st.lists(SPACED.map("".join), min_size=1, max_size=5))
def test_pieces_are_exact(family: str, tokenizers: dict[str, Any], some: list[str]) -> None:
    backend = Coder.of(tokenizers[family]).backend
    mine = words.Words(backend, byte_lengths(backend)[0])
    whole = [e.ids for e in backend.encode_batch(some, add_special_tokens=False)]
    assert encoded(mine, some) == whole
    assert encoded(mine, some) == whole  # now from memory


def test_where_text_is_cut(tokenizers: dict[str, Any]) -> None:
    backend = Coder.of(tokenizers["gpt2"]).backend
    mine = Words(backend, byte_lengths(backend)[0])
    assert parted(mine, "a b  c\n d. 5\ne 世 f </s> g") == [
        *("a", " b  c\n d", ".", " 5\n", "e 世 f", " </s>", " g"),
    ]
    assert parted(mine, "it's\nso.", "", "\nb ", ",c") == ["it", "'s\n", "so", ".", "\nb ", ",c"]
    assert parted(mine, "a<b=/c") == ["a<b", "=/c"]  # special tokens hold < and /


def test_the_memory_is_bounded(tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST", 3)
    backend = Coder.of(tokenizers["gpt2"]).backend
    mine = words.Words(backend, byte_lengths(backend)[0])
    mine.encode(["one two three four", "x" * 100])
    assert set(mine.known) == {b"one", b" two", b" three", b" four"}  # the long one is not kept
    mine.encode(["five"])
    assert set(mine.known) == {b"five"}


@pytest.mark.parametrize(
    ("family", "safe"),
    [("gpt2", True), ("llama3", True), ("unknown words", False), ("metaspace", False)],
)
def test_only_known_ways_of_finding_words_are_cut(
    family: str, safe: bool, tokenizers: dict[str, Any]
) -> None:
    assert cuttable(Coder.of(tokenizers[family]).backend) is safe


@pytest.mark.parametrize("token", ["two words", "<line\n>"])
def test_a_special_token_with_a_gap_forbids_cutting(token: str, tokenizers: dict[str, Any]) -> None:
    backend = Coder.of(tokenizers["gpt2"]).backend
    backend.add_tokens([token])
    assert not cuttable(backend)


def test_byte_lengths(tokenizers: dict[str, Any]) -> None:
    backend = Coder.of(tokenizers["gpt2"]).backend
    lengths, continues = byte_lengths(backend)
    ids = backend.encode("Grüße 世 </s>", add_special_tokens=False).ids
    assert lengths[ids].sum() == len("Grüße 世 </s>".encode())
    assert lengths[backend.token_to_id("</s>")] == 4
    apart = backend.encode(
        "\u0e01", add_special_tokens=False
    ).ids  # E0 B8 81, which nobody has seen
    assert continues[apart].tolist() == [False, True, True]
