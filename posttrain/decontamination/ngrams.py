"""The rule of Tülu 3 (arXiv:2411.15124, section 3.2): words that lie in shared n-grams.

A word of an evaluation prompt is matched by a training row when it lies in an n-gram of words
that this one row also has, inside one of its turns. The overlap is the share of the prompt's
words that are matched; the row matches when that reaches the threshold (0: any shared n-gram).

The evaluation side is small, so all of its n-grams go into an inverted index and the training
rows stream past it. Nothing is ranked or cut: an n-gram that occurs everywhere counts everywhere.
Numbers stand for n-grams, so a pair may be found by accident, but none can be missed; whatever is
found is counted again, word by word, before it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posttrain.decontamination.blocks import Block, blocks, hash_texts
from posttrain.decontamination.exact import Exact
from posttrain.decontamination.overlap import matched, prompt_ngrams, row_ngrams
from posttrain.decontamination.words import hash_windows

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_POSTINGS = 2**21  # places of shared n-grams that are held in memory at once


class Ngrams:
    """Prompts of fewer than n words have no n-gram: for these a whole turn must equal the prompt.

    Args:
        prompts: the evaluation prompts.
        n: words of an n-gram.
        threshold: share of a prompt's words that one row must match, 0 to 1.
    """

    def __init__(self, prompts: Sequence[str], n: int = 8, threshold: float = 0.5) -> None:
        self.prompts, self.n, self.threshold = prompts, n, threshold
        self.lengths, text = hash_texts(prompts)
        self.short = self.lengths < n
        self.exact = Exact(prompts, np.flatnonzero(self.short).tolist())
        self.doc_of = np.repeat(np.arange(len(prompts)), self.lengths)
        grams = hash_windows(text, n)
        last = np.cumsum(self.lengths)[self.doc_of[: len(grams)]] - n
        place = np.flatnonzero(np.arange(len(grams)) <= last)  # windows inside one prompt
        order = np.argsort(grams[place], kind="stable")
        self.places = place[order]
        self.grams, first = np.unique(grams[self.places], return_index=True)
        self.first = np.append(first, len(self.places))
        self.shift = np.uint64(64 - max(16, (16 * len(self.grams)).bit_length()))
        self.sieve = np.zeros(2 ** (64 - int(self.shift)), bool)
        self.sieve[self.grams >> self.shift] = True

    def __call__(self, batch: Sequence[Sequence[str]]) -> list[dict[int, float]]:
        """Per row (a list of turns) the prompts it matches, with the overlap."""
        found: list[dict[int, float]] = [{} for _ in batch]
        for block in blocks(batch):
            self.exact.search(block, found)
            last, shared = -1, set[tuple[str, ...]]()
            for row, doc in self.candidates(block):
                if row != last:
                    last, shared = row, row_ngrams(batch[row], self.n)
                flags = matched(prompt_ngrams(self.prompts[doc], self.n), shared)
                overlap = sum(flags) / len(flags)
                if overlap > 0 and overlap >= self.threshold:
                    found[row][doc] = overlap
        return found

    def candidates(self, block: Block) -> Iterator[tuple[int, int]]:
        """Rows and prompts that share enough numbers, ordered by row and prompt."""
        grams = hash_windows(block.hashes, self.n)
        word = np.flatnonzero(self.sieve[grams >> self.shift])
        if not len(word) or not len(self.grams):
            return
        gram = np.searchsorted(self.grams, grams[word]).clip(max=len(self.grams) - 1)
        same = self.grams[gram] == grams[word]
        pairs = np.unique(block.row_of(word[same]) * len(self.grams) + gram[same])
        rows, gram = np.divmod(pairs, len(self.grams))
        counts = self.first[gram + 1] - self.first[gram]
        for part in split(rows, counts):
            yield from self.covered(rows[part], gram[part], counts[part])

    def covered(self, rows: Ints, gram: Ints, counts: Ints) -> Iterator[tuple[int, int]]:
        """Lay the n-grams of each row over the prompts and count the words underneath."""
        begin = np.cumsum(counts) - counts
        place = self.places[np.repeat(self.first[gram] - begin, counts) + np.arange(counts.sum())]
        size = len(self.doc_of)
        rows, place = np.divmod(np.sort(np.repeat(rows, counts) * size + place), size)
        doc = self.doc_of[place]
        new = np.append(True, (rows[1:] != rows[:-1]) | (doc[1:] != doc[:-1]))
        step = np.append(place[1:] - place[:-1], self.n)  # to the next n-gram of the same prompt
        step[np.append(new[1:], True)] = self.n
        first = np.flatnonzero(new)
        overlap = np.add.reduceat(step.clip(max=self.n), first) / self.lengths[doc[first]]
        enough = first[overlap >= self.threshold]
        yield from zip(rows[enough].tolist(), doc[enough].tolist(), strict=True)


def split(rows: Ints, counts: Ints) -> Iterator[slice]:
    """Slices of whole rows with about `_POSTINGS` places each."""
    part = np.cumsum(counts) // _POSTINGS
    row_part = part[np.searchsorted(rows, rows)]  # that of the row's first entry
    edges = np.flatnonzero(np.diff(row_part)) + 1
    bounds = [0, *edges.tolist(), len(rows)]
    yield from (slice(a, b) for a, b in pairwise(bounds) if b > a)
