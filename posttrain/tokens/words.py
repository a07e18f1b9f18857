"""Byte-level BPE with a memory: text is split where no token can cross, and no piece is done twice.

A byte-level tokenizer first cuts text into words with a regular expression, then merges bytes
inside each word. Text may be cut wherever no match of the expression can go on, since none looks
back, and what is looked ahead for (no visible character) is the same at the end of a piece. In the
expressions of `KNOWN`, with visible characters, letters, digits and marks of ASCII, that is so

    before a space      between two visible characters,
    behind a line feed  between two visible characters,
    before a mark       behind a letter or a digit.

The tokens of the pieces are then the tokens of the whole. Pieces repeat: most are found in a
dictionary. The cutting and counting is done on the bytes of many texts at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
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
VISIBLE, ALNUM, MARK = 1, 2, 4  # what an ASCII character is, as bits
LONGEST = 64  # bytes of a piece worth remembering
MOST = 300_000  # pieces remembered, about 60 MB
TOGETHER = 256  # unseen pieces encoded in one call


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
    """Whether cutting is safe: a known way to find words, and no special token with a gap."""
    *before, last = steps(backend)
    added = backend.get_added_tokens_decoder().values()
    return (
        byte_level(backend)
        and not backend.model.dropout
        and all(step.get("type") == "Digits" or known_split(step) for step in before)
        and (last.get("use_regex", True) or any(known_split(step) for step in before))
        and not any(t.lstrip or t.rstrip or t.single_word for t in added)
        and not any({" ", "\n"} & set(t.content) for t in added)
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


def character_kinds(backend: Tokenizer) -> NDArray[np.uint8]:
    """`[256]` bits of every byte. What occurs in a special token is no mark: those stay whole."""
    kept = set("".join(t.content for t in backend.get_added_tokens_decoder().values()))
    kinds = np.zeros(256, np.uint8)
    for byte in range(0x21, 0x7F):
        character = chr(byte)
        mark = 0 if character in kept else MARK
        kinds[byte] = VISIBLE | (ALNUM if character.isalnum() else mark)
    return kinds


class Words:
    """Encodes texts piece by piece, from memory where it can.

    Args:
        backend: a tokenizer for which `cuttable` holds.
        lengths: its `byte_lengths`.
    """

    def __init__(self, backend: Tokenizer, lengths: NDArray[np.int64]) -> None:
        self.backend = backend
        self.lengths = lengths
        self.kinds = character_kinds(backend)
        self.known: dict[bytes, bytes] = {}  # int32 ids as bytes: small, and quick to join

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts, end to end, and where each begins (`[texts + 1]`)."""
        encoded = [text.encode() for text in texts]
        data, begins = b"".join(encoded), offsets([len(text) for text in encoded])
        cuts = self.cuts(data, begins)
        pieces = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(cuts) - 1, [None, pa.py_buffer(cuts), pa.py_buffer(data)]
        ).dictionary_encode()
        parts = self.tokens(pieces.dictionary.to_pylist())
        ids, ends = spread(parts, pieces.indices.to_numpy())
        return ids, ends[np.searchsorted(cuts, begins)]

    def cuts(self, data: bytes, begins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where pieces of texts begin: at each of `begins`, and wherever it is safe."""
        array = np.frombuffer(data, np.uint8)
        kinds = self.kinds[array]
        visible = (kinds & VISIBLE) > 0
        cut = np.zeros(len(array) + 2, np.bool_)  # two more, so that every text has two behind it
        if len(array) > 1:
            between, gap = visible[:-2] & visible[2:], array[1:-1]
            cut[2 : len(array)] = between & (gap == 0x0A)
            cut[begins[:-1] + 1] = False  # it looked at the text before
            cut[1 : len(array) - 1] |= between & (gap == 0x20)
            cut[begins[1:] - 1] = False  # it looked at the text behind
            cut[1 : len(array)] |= ((kinds[1:] & MARK) > 0) & ((kinds[:-1] & ALNUM) > 0)
        cut[begins] = True
        return np.flatnonzero(cut)

    def tokens(self, pieces: list[bytes]) -> list[bytes]:
        """Token ids of different pieces, as the bytes of int32 arrays."""
        if len(self.known) > MOST:
            self.known = {}
        new = [piece for piece in pieces if piece not in self.known]
        self.learn(new)
        out = [self.known[piece] for piece in pieces]
        for piece in new:
            if len(piece) > LONGEST:
                del self.known[piece]
        return out

    def learn(self, new: list[bytes]) -> None:
        """Encode unseen pieces; the short ones many at once, since a call costs more than they."""
        short = [p for p in new if len(p) <= LONGEST]
        groups = [short[i : i + TOGETHER] for i in range(0, len(short), TOGETHER)]
        texts = [[p.decode() for p in group] for group in groups]
        joined = self.backend.encode_batch_fast(
            texts, is_pretokenized=True, add_special_tokens=False
        )
        for group, encoding in zip(groups, joined, strict=True):
            self.divide(group, np.array(encoding.ids, np.int32))
        alone = [p for p in new if p not in self.known]
        encoded = self.backend.encode_batch_fast(
            [p.decode() for p in alone], add_special_tokens=False
        )
        for piece, encoding in zip(alone, encoded, strict=True):
            self.known[piece] = np.array(encoding.ids, np.int32).tobytes()

    def divide(self, group: list[bytes], ids: NDArray[np.int32]) -> None:
        """Give each piece of a group its tokens, where they end with it."""
        token_ends = self.lengths[ids].cumsum()
        ends = np.cumsum([len(piece) for piece in group])
        if not len(ids) or token_ends[-1] != ends[-1]:
            return  # it holds what is not tiled, as a token that swallows spaces
        at = np.searchsorted(token_ends, ends)
        if (token_ends[at] != ends).any():
            return
        last, values, size = 0, ids.tobytes(), ids.itemsize
        for piece, end in zip(group, ((at + 1) * size).tolist(), strict=True):
            self.known[piece] = values[last:end]
            last = end


def offsets(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several lengths begins, and the end of the last."""
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def spread(
    parts: list[bytes], which: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """`parts[i]` for each `i` of `which`, end to end as int32, and where each begins."""
    begins = offsets([len(part) // 4 for part in parts])
    values = np.frombuffer(b"".join(parts), np.int32)
    lengths = np.diff(begins)[which]
    ends = offsets(lengths)
    places = np.arange(ends[-1]) + np.repeat(begins[which] - ends[:-1], lengths)
    return values[places], ends
