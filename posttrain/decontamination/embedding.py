"""Prompts that mean the same in other words: cosine similarity of embeddings.

The embedder is the caller's: anything that turns texts into vectors. `Lexical` needs no model and
no download, but it only knows letters: it finds a paraphrase that keeps enough of the words.
A model's vectors come from `ModelEmbed` in the room `generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posttrain.decontamination.words import hash_windows, words

Vectors = NDArray[np.float32]

_BLOCK = 1024  # turns embedded at once
_COLUMNS = 8192  # prompts compared with them at once


class Embed(Protocol):
    """Texts in, one vector each out: `[N]` -> `[N, D]`. Lengths of vectors do not matter."""

    def __call__(self, texts: Sequence[str]) -> NDArray[np.floating]: ...


class Embeddings:
    """A row matches a prompt when one of its turns is at least `threshold` similar to it.

    Args:
        prompts: the evaluation prompts.
        threshold: least cosine similarity, above 0 up to 1.
        embed: default: `Lexical`, fitted to the prompts.
    """

    def __init__(
        self, prompts: Sequence[str], threshold: float = 0.5, embed: Embed | None = None
    ) -> None:
        self.threshold = threshold
        self.embed = embed or Lexical.fit(prompts)
        parts = [prompts[i : i + _BLOCK] for i in range(0, len(prompts), _BLOCK)]
        self.vectors = np.concatenate([unit(self.embed(part)) for part in parts])

    def __call__(self, batch: Sequence[Sequence[str]]) -> list[dict[int, float]]:
        """Per row (a list of turns) the prompts it matches, with the similarity."""
        found: list[dict[int, float]] = [{} for _ in batch]
        turns = [(row, turn) for row, texts in enumerate(batch) for turn in texts if turn.strip()]
        for start in range(0, len(turns), _BLOCK):
            part = turns[start : start + _BLOCK]
            vectors = unit(self.embed([turn for _, turn in part]))
            for left in range(0, len(self.vectors), _COLUMNS):
                close = vectors @ self.vectors[left : left + _COLUMNS].T
                for turn, doc in zip(*np.nonzero(close >= self.threshold), strict=True):
                    best = found[part[turn][0]]
                    doc_id, similarity = left + int(doc), min(float(close[turn, doc]), 1.0)
                    best[doc_id] = max(best.get(doc_id, 0.0), similarity)
        return [dict(sorted(one.items())) for one in found]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows of length 1; a row of zeros stays one, and is similar to nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


@dataclass(frozen=True)
class Lexical:
    """TF-IDF of the 3, 4 and 5 letters in a row, hashed into a fixed number of signed buckets.

    Attributes:
        idf: `[D]` how rare each bucket is among the texts it was fitted to; D is a power of two.
    """

    idf: NDArray[np.float64]

    @classmethod
    def fit(cls, texts: Sequence[str], dimensions: int = 2048) -> Lexical:
        """Learn which letters in a row are common."""
        known = np.zeros(dimensions)
        for text in texts:
            known[np.unique(buckets(text, dimensions)[0])] += 1
        return cls(np.log((1 + len(texts)) / (1 + known)) + 1)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """`[N]` -> `[N, D]`, not yet of length 1."""
        size = len(self.idf)
        vectors = np.zeros((len(texts), size))
        for vector, text in zip(vectors, texts, strict=True):
            place, weight = buckets(text, size)
            vector[:] = np.bincount(place, weight, size) * self.idf
        return vectors


def buckets(text: str, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each distinct run of letters its bucket and its weight, +-(1 + log count)."""
    spaced = " ".join(["", *words(text), ""])
    codes = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), np.uint32)
    letters = codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    letters ^= letters >> np.uint64(29)
    runs = [hash_windows(letters, length) for length in (3, 4, 5)]
    run, count = np.unique(np.concatenate(runs), return_counts=True)
    run = (run ^ (run >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    sign = np.where(run & np.uint64(2**20), 1.0, -1.0)
    shift = np.uint64(64 - (size.bit_length() - 1))
    return (run >> shift).astype(np.int64), sign * (1 + np.log(count))
