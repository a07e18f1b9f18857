"""Pieces of a text have the tokens that the whole text has, whatever stands around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.tokens import words
from posttrain.tokens.coder import Coder
from posttrain.tokens.words import CUT, INNER, byte_lengths, cuttable

SPACED = st.lists(st.sampled_from([*" \n\t\r5a,'sS.{é世\u00a0\u2028🙂<", "</s>"]), max_size=30)


def decoded(parts: list[bytes]) -> list[list[int]]:
    return [np.frombuffer(part, np.int32).tolist() for part in parts]


@pytest.mark.parametrize("family", ["gpt2", "digits", "llama3", "qwen"])
@settings(max_examples=150, deadline=None)
@given(some=st.lists(SPACED.map("".join), min_size=1, max_size=5))
def test_pieces_are_exact(family: str, tokenizers: dict[str, Any], some: list[str]) -> None:
    backend = Coder.of(tokenizers[family]).backend
    mine = words.Words(backend, byte_lengths(backend)[0])
    whole = [e.ids for e in backend.encode_batch(some, add_special_tokens=False)]
    assert decoded(mine.encode(some)) == whole
    assert decoded(mine.encode(some)) == whole  # now from memory


def test_where_text_is_cut() -> None:
    assert CUT.split("a b  c\n d. 5\ne 世 f </s> g") == [
        "a",
        " b  c\n d.",
        " 5\ne 世 f",
        " </s>",
        " g",
    ]
    assert all(INNER.fullmatch(piece) for piece in (" a", " 5", " b  c\n d."))
    assert not any(INNER.fullmatch(piece) for piece in ("a", " ", " 世", " a\n", "  a"))


def test_the_memory_is_bounded(tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST", 3)
    backend = Coder.of(tokenizers["gpt2"]).backend
    mine = words.Words(backend, byte_lengths(backend)[0])
    mine.encode(["one two three four", "x" * 100])
    assert set(mine.known) == {"one", " two", " three", " four"}  # the long one is not kept
    mine.encode(["five"])
    assert set(mine.known) == {"five"}


@pytest.mark.parametrize(
    ("family", "safe"),
    [("gpt2", True), ("llama3", True), ("unknown words", False), ("metaspace", False)],
)
def test_only_known_ways_of_finding_words_are_cut(
    family: str, safe: bool, tokenizers: dict[str, Any]
) -> None:
    assert cuttable(Coder.of(tokenizers[family]).backend) is safe


def test_a_special_token_with_a_space_forbids_cutting(tokenizers: dict[str, Any]) -> None:
    backend = Coder.of(tokenizers["gpt2"]).backend
    backend.add_tokens(["two words"])
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
