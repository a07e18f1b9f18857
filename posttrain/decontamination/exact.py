"""A whole evaluation prompt that equals a user turn, word for word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posttrain.decontamination.blocks import Block, blocks
from posttrain.decontamination.words import powers, words


class Exact:
    """Case, punctuation and spacing do not count; a prompt without any word equals nothing.

    A turn that holds the prompt and more is found by n-grams with a threshold of 1.

    Args:
        prompts: the evaluation prompts.
        only: indices of those to look for; default: all.
    """

    def __init__(self, prompts: Sequence[str], only: Sequence[int] | None = None) -> None:
        docs = range(len(prompts)) if only is None else only
        self.docs: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for doc in docs:
            key = tuple(words(prompts[doc]))
            if key:
                self.docs[key].append(doc)
        known = [
            hash_
            for block in blocks([[" ".join(key)] for key in self.docs])
            for hash_ in turn_hashes(block)
        ]
        self.hashes = np.unique(np.array(known, np.uint64))

    def __call__(self, batch: Sequence[Sequence[str]]) -> list[dict[int, float]]:
        """Per row the prompts it holds; each is wholly covered."""
        found: list[dict[int, float]] = [{} for _ in batch]
        for block in blocks(batch):
            self.search(block, found)
        return found

    def search(self, block: Block, found: list[dict[int, float]]) -> None:
        """Add what a block holds to `found`."""
        if not len(self.hashes):
            return
        hashes = turn_hashes(block)
        place = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        for turn in np.flatnonzero(self.hashes[place] == hashes).tolist():
            for doc in self.docs.get(tuple(words(block.turns[turn])), ()):
                found[block.rows[turn]][doc] = 1.0


def turn_hashes(block: Block) -> NDArray[np.uint64]:
    """`[turns]` a number per turn; equal words in equal order have equal numbers."""
    up, down = powers(len(block.hashes) + 1)
    sums = np.zeros(len(block.hashes) + 1, np.uint64)
    np.cumsum(block.hashes * up[: len(block.hashes)], out=sums[1:])
    return (sums[block.ends] - sums[block.begins]) * down[block.begins]
