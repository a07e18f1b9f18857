"""Which tokens lie in a span, against a plain reference that walks over every token."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.tokens.coder import Coder, check_text, token_places

FAMILIES = ["gpt2", "digits", "llama3", "qwen", "unknown words", "metaspace", "wordpiece"]
PIECES = [" ", "  ", "\n", "\n\n", "\t", "a", "the", " cat", "It's", "42", "3", ".", "</s>"]
PIECES += [
    "é",
    "e\u0301",
    "世界",
    "🙂",
    "👩‍👩‍👧",
    "\u3000",
    "\u00a0",
    "<|eot_id|>",
    "<|user|>\n",
    "{",
    "  }",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


def plain_mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token lies in a span, token by token."""
    out: list[bool] = []
    position = 0
    for start, end in offsets:
        shares = start < end and start < position  # part of a character that is begun already
        first, last = (start if shares else position), max(end, position)
        inside = any(a <= first < b and last <= b for a, b in spans)
        out.append(inside and not (shares and not out[-1]))
        position = last
    return out


def cuts_to_spans(text: str, cuts: Sequence[int]) -> list[tuple[int, int]]:
    places = sorted({c % (len(text) + 1) for c in cuts})
    pairs = list(zip(places[::2], places[1::2], strict=False))
    return [(a, b) for a, b in pairs if a < b]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(data=st.lists(st.tuples(texts, st.lists(st.integers(0, 99), max_size=6)), max_size=4))
def test_ids_and_masks_are_those_of_the_plain_way(
    family: str, tokenizers: dict[str, Any], data: list[tuple[str, list[int]]]
) -> None:
    tokenizer = tokenizers[family]
    written = []
    for text, cuts in data:
        try:
            check_text(text)
        except DataError:
            continue
        written.append((text, cuts_to_spans(text, cuts)))
    encoded = Coder.of(tokenizer).encode([t for t, _ in written], [s for _, s in written])
    inside = encoded.inside()
    for i, (text, spans) in enumerate(written):
        begin, end = encoded.bounds[i], encoded.bounds[i + 1]
        plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert encoded.ids[begin:end].tolist() == plain["input_ids"]
        assert inside[begin:end].tolist() == plain_mask(plain["offset_mapping"], spans)


def test_the_fast_way_is_taken_where_it_is_safe(tokenizers: dict[str, Any]) -> None:
    coders = {name: Coder.of(tokenizer) for name, tokenizer in tokenizers.items()}
    assert [name for name, coder in coders.items() if coder.bytes is not None] == FAMILIES[:5]
    assert [name for name, coder in coders.items() if coder.words is not None] == FAMILIES[:4]


def test_a_token_across_the_edge_of_a_span_is_outside(tokenizers: dict[str, Any]) -> None:
    """` cat` is one token with its space: a span that begins behind the space leaves it out."""
    tokenizer = tokenizers["gpt2"]
    encoded = Coder.of(tokenizer).encode(["A cat,"], [[(2, 6)]])
    assert [tokenizer.decode([i]) for i in encoded.ids.tolist()] == ["A", " cat", ","]
    assert encoded.inside().tolist() == [False, False, True]


def test_token_places_by_hand() -> None:
    """`a`, two parts of one character, then a word whose space its offsets leave out."""
    starts, ends, continues = token_places([(0, 1), (1, 2), (1, 2), (3, 5), (5, 5)])
    assert starts.tolist() == [0, 1, 1, 2, 5]
    assert ends.tolist() == [1, 2, 2, 5, 5]
    assert continues.tolist() == [False, False, True, False, False]


def test_a_tokenizer_that_swallows_spaces_is_encoded_as_it_says(tokenizers: dict[str, Any]) -> None:
    import copy

    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(tokenizers["gpt2"])
    tokenizer.add_tokens([AddedToken("<sep>", lstrip=True, rstrip=True, normalized=False)])
    coder = Coder.of(tokenizer)
    assert coder.words is None
    text = "the cat   <sep>  the dog"
    encoded = coder.encode([text], [[(0, 7)]])
    assert encoded.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(encoded.ids[encoded.inside()]) == "the cat"


def test_a_coder_travels_without_its_memory(tokenizers: dict[str, Any]) -> None:
    coder = Coder.of(tokenizers["llama3"])
    before = coder.encode(["Hello there, cat."], [[(0, 5)]])
    again = pickle.loads(pickle.dumps(coder))
    assert "words" not in vars(again)
    after = again.encode(["Hello there, cat."], [[(0, 5)]])
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.inside(), after.inside())


def test_text_without_a_utf8_form_is_refused() -> None:
    check_text("fine 🙂")
    with pytest.raises(DataError, match="half of a surrogate pair"):
        check_text("broken \ud83d")
