"""Byte-level BPE with a memory: text is split where no token can cross, and no piece is done twice.

A byte-level tokenizer first cuts text into words with a regular expression, then merges bytes
inside each word. In the expressions of `KNOWN` no match goes on over a space that follows a visible
character, none looks back, and what is looked ahead for (no visible character) is the same at the
end of a piece. So text may be cut before a space between two visible characters, and the tokens of
the pieces are the tokens of the whole. Pieces repeat: most are found in a dictionary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import BPE

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN = {
    rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{REST}",  # Llama 3, cl100k
    rf"{CONTRACTION}|{WORD}|\p{{N}}|{REST}",  # Qwen 2 and 3
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
}
CUT = re.compile(r"(?<=[!-~])(?= [!-~])")
INNER = re.compile(r" [!-~](?:.*[!-~])?", re.DOTALL)  # pieces that `CUT` would part again if joined
LONGEST = 64  # characters of a piece worth remembering
MOST = 300_000  # pieces remembered, about 60 MB
TOGETHER = 256  # unseen pieces encoded as one text


def state(part: Any) -> dict[str, Any]:
    """The settings of a part of a tokenizer, as `tokenizer.json` has them."""
    return dict(json.loads(part.__getstate__())) if part is not None else {}


def steps(backend: Tokenizer) -> list[dict[str, Any]]:
    """How a tokenizer finds words, step by step."""
    whole = state(backend.pre_tokenizer)
    return list(whole.get("pretokenizers", [whole]))


def byte_level(backend: Tokenizer) -> bool:
    """Whether tokens tile the bytes of the text: byte-level BPE that changes no character."""
    last = steps(backend)[-1]
    return (
        isinstance(backend.model, BPE)
        and state(backend.normalizer).get("type") in (None, "NFC")
        and last.get("type") == "ByteLevel"
        and not last["add_prefix_space"]
    )


def cuttable(backend: Tokenizer) -> bool:
    """Whether `CUT` is safe: a known way to find words, and no special token with a space."""
    *before, last = steps(backend)
    added = backend.get_added_tokens_decoder().values()
    return (
        byte_level(backend)
        and not backend.model.dropout
        and all(step.get("type") == "Digits" or known_split(step) for step in before)
        and (last.get("use_regex", True) or any(known_split(step) for step in before))
        and not any(t.lstrip or t.rstrip or t.single_word or " " in t.content for t in added)
    )


def known_split(step: dict[str, Any]) -> bool:
    return (
        step.get("type") == "Split"
        and step["behavior"] == "Isolated"
        and not step["invert"]
        and step["pattern"].get("Regex") in KNOWN
    )


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]


def byte_lengths(backend: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`[V]` bytes of text that each token stands for, and whether it begins inside a character.

    A token of a byte-level vocabulary that stands for no bytes counts as far too many.
    """
    characters = byte_characters()
    known, inner = set(characters), set(characters[0x80:0xC0])  # UTF-8's continuation bytes
    vocab = backend.get_vocab()
    lengths = np.full(max(vocab.values()) + 1, 1 << 40, np.int64)
    continues = np.zeros(len(lengths), np.bool_)
    for token, i in vocab.items():
        if known.issuperset(token):
            lengths[i] = len(token)
            continues[i] = token[:1] in inner
    for i, added in backend.get_added_tokens_decoder().items():
        lengths[i], continues[i] = len(added.content.encode()), False
    return lengths, continues


class Words:
    """Encodes texts piece by piece, from memory where it can.

    Args:
        backend: a tokenizer for which `cuttable` holds.
        lengths: its `byte_lengths`.
    """

    def __init__(self, backend: Tokenizer, lengths: NDArray[np.int64]) -> None:
        self.backend = backend
        self.lengths = lengths
        self.known: dict[str, bytes] = {}  # int32 ids as bytes: small, and quick to join

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, as the bytes of an int32 array."""
        pieces = [CUT.split(text) for text in texts]
        if len(self.known) > MOST:
            self.known = {}
        new = set(chain.from_iterable(pieces)).difference(self.known)
        self.learn(list(new))
        get = self.known.__getitem__
        out = [b"".join(map(get, parts)) for parts in pieces]
        for piece in new:
            if len(piece) > LONGEST:
                del self.known[piece]
        return out

    def learn(self, new: list[str]) -> None:
        """Encode unseen pieces; the short ones many at once, since a call costs more than they."""
        inner = [p for p in new if len(p) <= LONGEST and INNER.fullmatch(p)]
        groups = [inner[i : i + TOGETHER] for i in range(0, len(inner), TOGETHER)]
        texts = ["".join(group) for group in groups]
        joined = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        for group, encoding in zip(groups, joined, strict=True):
            self.divide(group, np.array(encoding.ids, np.int32))
        alone = [p for p in new if p not in self.known]
        encoded = self.backend.encode_batch_fast(alone, add_special_tokens=False)
        for piece, encoding in zip(alone, encoded, strict=True):
            self.known[piece] = np.array(encoding.ids, np.int32).tobytes()

    def divide(self, group: list[str], ids: NDArray[np.int32]) -> None:
        """Give each piece of a joined text its tokens, where they end with it."""
        token_ends = self.lengths[ids].cumsum()
        ends = np.cumsum([len(p) if p.isascii() else len(p.encode()) for p in group])
        if not len(ids) or token_ends[-1] != ends[-1]:
            return  # it holds what is not tiled, as a token that swallows spaces
        at = np.searchsorted(token_ends, ends)
        if (token_ends[at] != ends).any():
            return
        last, values, size = 0, ids.tobytes(), ids.itemsize
        for piece, end in zip(group, ((at + 1) * size).tolist(), strict=True):
            self.known[piece] = values[last:end]
            last = end
