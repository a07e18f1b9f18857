"""Turns of many rows joined to one long text, so that numpy sees few large arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posttrain.decontamination.words import BREAK, word_hashes

BLOCK = 2**18  # characters: the arrays of a block then fit into a processor's cache


@dataclass(frozen=True)
class Block:
    """Whole rows of a batch.

    Attributes:
        turns: their texts, one after another.
        rows: `[turns]` the row that each turn belongs to.
        begins, ends: `[turns]` where each turn begins and ends, in words of the block.
        hashes: `[words]` a number per word; a turn is followed by one word that no text has.
        starts: `[words]` where each word starts, in characters of the block.
        turn_starts: `[turns]` where each turn starts, in characters of the block.
    """

    turns: Sequence[str]
    rows: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    turn_starts: NDArray[np.int64]

    def row_of(self, word: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each word."""
        turn = np.searchsorted(self.turn_starts, self.starts[word], "right") - 1
        return self.rows[turn]


def blocks(batch: Sequence[Sequence[str]]) -> Iterator[Block]:
    """Cut a batch (rows, each a list of turns) into blocks; a row is never cut."""
    turns: list[str] = []
    rows: list[int] = []
    size = 0
    for row, texts in enumerate(batch):
        turns += texts
        rows += [row] * len(texts)
        size += sum(map(len, texts))
        if size >= BLOCK:
            yield _block(turns, rows)
            turns, rows, size = [], [], 0
    if turns:
        yield _block(turns, rows)


def hash_texts(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Words per text, and the hashes of all words one after another."""
    lengths, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for block in blocks([[text] for text in texts]):
        lengths.append(block.ends - block.begins)
        hashes.append(np.delete(block.hashes, block.ends[:-1]))  # what stands between two turns
    return np.concatenate(lengths), np.concatenate(hashes)


def _block(turns: list[str], rows: list[int]) -> Block:
    text = BREAK.join(turns)
    if text.count(BREAK) != len(turns) - 1:  # a text has one of its own: there it only separates
        text = BREAK.join(turn.replace(BREAK, " ") for turn in turns)
    lengths = np.fromiter(map(len, turns), np.int64, len(turns))
    turn_starts = np.cumsum(lengths + 1) - lengths - 1
    hashes, starts = word_hashes(text)
    return Block(
        turns,
        np.array(rows, np.int64),
        np.searchsorted(starts, turn_starts),
        np.searchsorted(starts, turn_starts + lengths),
        hashes,
        starts,
        turn_starts,
    )
