"""Text -> token ids, and which of the tokens lie inside spans of characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from posttrain.errors import DataError
from posttrain.tokens.spans import Span
from posttrain.tokens.words import Words, byte_lengths, byte_level, cuttable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ints = NDArray[np.int64]
SURROGATE = "the text holds half of a surrogate pair, which no tokenizer can read; mend its file"


@dataclass
class Encoded:
    """Tokens of several texts, end to end.

    Attributes:
        ids: `[N]` token ids of all texts.
        bounds: `[texts + 1]` where each text begins in `ids`; the last one is N.
        first: per span, all texts' spans in order: its first token in `ids`.
        last: per span: one past its last token; not above `first` where no token lies inside.
    """

    ids: NDArray[np.int32]
    bounds: Ints
    first: Ints
    last: Ints

    def inside(self) -> NDArray[np.bool_]:
        """`[N]` whether each token lies in a span."""
        step = np.zeros(len(self.ids) + 1, np.int32)
        real = self.first < self.last
        np.add.at(step, self.first[real], 1)
        np.add.at(step, self.last[real], -1)
        return step[:-1].cumsum() > 0


@dataclass
class Coder:
    """A fast tokenizer without its wrapping: light to send to another process.

    A token lies in a span when all characters of which it holds any byte do; and of the tokens that
    hold parts of one character none is inside without those before it. A leading space that a
    tokenizer leaves out of its offsets belongs to the token.

    Attributes:
        backend: the tokenizer proper.
        wrapper: the transformers tokenizer, where it encodes in a way of its own; else `None`.
    """

    backend: Tokenizer
    wrapper: PreTrainedTokenizerBase | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Coder:
        """The coder of a fast tokenizer; it has a copy of the tokenizer's settings."""
        from transformers import PreTrainedTokenizerBase as Base
        from transformers import PreTrainedTokenizerFast as Fast

        kind: Any = type(tokenizer)
        usual = kind.__call__ is Base.__call__ and (
            getattr(kind, "_encode_plus", None) is getattr(Fast, "_encode_plus", None)
        )
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
        return cls(backend, None if usual else tokenizer)

    def __getstate__(self) -> dict[str, Any]:
        split = self.backend.encode_special_tokens  # the one setting that its own pickle forgets
        return {"backend": self.backend, "wrapper": self.wrapper, "split": split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backend, self.wrapper = state["backend"], state["wrapper"]
        self.backend.encode_special_tokens = state["split"]

    @cached_property
    def bytes(self) -> tuple[Ints, NDArray[np.bool_]] | None:
        """`byte_lengths`, where tokens tile the bytes of a text."""
        if self.wrapper is not None or not byte_level(self.backend):
            return None
        return byte_lengths(self.backend)

    @cached_property
    def words(self) -> Words | None:
        if self.bytes is None or self.backend.encode_special_tokens or not cuttable(self.backend):
            return None
        return Words(self.backend, self.bytes[0])

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Encoded:
        """Tokens of texts, and the tokens of each span. No special token is added.

        Args:
            texts: `check_text` has passed each of them.
            spans: per text the spans of its characters, in order and apart.
        """
        if not texts:
            nothing = np.zeros(0, np.int64)
            return Encoded(np.zeros(0, np.int32), np.zeros(1, np.int64), nothing, nothing)
        if self.bytes is None:
            return self.by_offsets(texts, spans)
        lengths, continues = self.bytes
        if self.words is not None:
            ids, bounds = self.words.encode(texts)
        else:
            done = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            ids, bounds = flat([e.ids for e in done])
        ends = np.concatenate([[0], lengths[ids].cumsum()])
        places = [byte_places(text, mine) for text, mine in zip(texts, spans, strict=True)]
        sizes = np.array([p[-1] for p in places])
        counts = np.array([len(mine) for mine in spans])
        at = np.array([place for p in places for place in p[:-1]], np.int64)
        at = at.reshape(-1, 2) + np.repeat(ends[bounds[:-1]], counts)[:, None]
        first = np.searchsorted(ends[:-1], at[:, 0], "left")
        last = np.searchsorted(ends[1:], at[:, 1], "right")
        first = skip(first, last, continues[ids])
        out = Encoded(ids, bounds, first, last)
        tiled = np.diff(ends[bounds]) == sizes
        for i in np.flatnonzero(~(tiled & [composed(text) for text in texts])).tolist():
            self.correct(out, i, texts[i], spans[i], int(counts[:i].sum()))
        return out

    def correct(self, out: Encoded, i: int, text: str, mine: Sequence[Span], place: int) -> None:
        """Find the spans of a text whose tokens do not tile it: characters without a token, say."""
        again = self.by_offsets([text], [mine])
        shift = out.bounds[i]
        out.first[place : place + len(mine)] = again.first + shift
        out.last[place : place + len(mine)] = again.last + shift

    def by_offsets(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Encoded:
        """The same from the tokenizer's own character offsets."""
        if self.wrapper is not None:
            out = self.wrapper(
                list(texts),
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            lists, offsets = out["input_ids"], out["offset_mapping"]
        else:
            encodings = self.backend.encode_batch(texts, add_special_tokens=False)
            lists, offsets = [e.ids for e in encodings], [e.offsets for e in encodings]
        ids, bounds = flat(lists)
        first, last = [], []
        for begin, pairs, mine in zip(bounds[:-1].tolist(), offsets, spans, strict=True):
            starts, ends, continues = token_places(pairs)
            stops = [e for _, e in mine]
            low = np.searchsorted(starts, [s for s, _ in mine], "left")
            high = np.searchsorted(ends, stops, "right")
            high = np.minimum(high, np.searchsorted(starts, stops, "left"))
            first.append(skip(low, high, continues) + begin)
            last.append(high + begin)
        return Encoded(ids, bounds, np.concatenate(first), np.concatenate(last))


def check_text(text: str) -> None:
    """Refuse text that has no UTF-8 form.

    Raises:
        DataError: a lone surrogate.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(SURROGATE) from error


def composed(text: str) -> bool:
    """Whether Unicode composition (NFC), which some tokenizers apply, leaves the text alone."""
    return text.isascii() or unicodedata.is_normalized("NFC", text)


def flat(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], Ints]:
    """Lists end to end, and where each begins."""
    bounds = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(x) for x in lists], out=bounds[1:])
    return np.fromiter(chain.from_iterable(lists), np.int32, int(bounds[-1])), bounds


def byte_places(text: str, spans: Sequence[Span]) -> list[int]:
    """Bounds of spans in bytes, then the bytes of the whole text."""
    places = [place for span in spans for place in span]
    if text.isascii():
        return [*places, len(text)]
    sizes = [len(text[a:b].encode()) for a, b in pairwise([0, *places, len(text)])]
    return np.cumsum(sizes).tolist()


def token_places(offsets: Sequence[tuple[int, int]]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Characters of each token: its first, one past its last, and whether it begins inside one.

    Together the tokens tile the text: leading spaces that are left out of the offsets belong to the
    token. Tokens that hold parts of one character share it.
    """
    pairs = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets)).reshape(-1, 2)
    ends = np.maximum.accumulate(pairs[:, 1])
    before = np.concatenate([[0], ends])[:-1]
    continues = (pairs[:, 0] < pairs[:, 1]) & (pairs[:, 0] < before)
    starts = np.maximum.accumulate(np.where(continues, pairs[:, 0], before))
    return starts, ends, continues


def skip(first: Ints, last: Ints, continues: NDArray[np.bool_]) -> Ints:
    """`first`, past tokens that go on with a character which an earlier token began."""
    first = np.array(first, np.int64)
    while True:
        inner = np.flatnonzero(first < last)
        inner = inner[continues[first[inner]]]
        if not len(inner):
            return first
        first[inner] += 1
