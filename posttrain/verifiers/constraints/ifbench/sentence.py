"""`sentence:`: what each sentence has more of than the one before."""

from __future__ import annotations

from itertools import pairwise

from posttrain.verifiers.constraints.ifbench.tokens import PUNCTUATION, bare, split_sentences
from posttrain.verifiers.constraints.keywords import whole_word_count


def keyword(response: str, word: str, N: int) -> bool:
    """The N-th sentence holds the word."""
    sentences = split_sentences(response)
    return 1 <= N <= len(sentences) and whole_word_count(sentences[N - 1], word) > 0


def increment(response: str, small_n: int) -> bool:
    """Each sentence has exactly so many words more than the one before."""
    counts = [len(bare(sentence).split()) for sentence in split_sentences(response)]
    return bool(counts) and all(b == a + small_n for a, b in pairwise(counts))


def alliteration_increment(response: str) -> bool:
    """Each sentence has more alliterating words in a row than the one before."""
    counts = [alliterating(sentence) for sentence in split_sentences(response)]
    return all(a < b for a, b in pairwise(counts))


def alliterating(sentence: str) -> int:
    """Words that stand beside one with the same first letter."""
    firsts = [w[0] for word in sentence.lower().split() if (w := word.lstrip(PUNCTUATION))]
    count, was_same = 0, False
    for a, b in pairwise(firsts):
        count += (1 if was_same else 2) if a == b else 0
        was_same = a == b
    return count
