"""How many words, sentences and paragraphs."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.combination import divided
from posttrain.verifiers.constraints.relation import holds
from posttrain.verifiers.constraints.sentences import count_sentences

_WORD = re.compile(r"\w+")


def number_words(response: str, num_words: int, relation: str) -> bool:
    """Words are runs of letters, digits and underscores."""
    return holds(sum(1 for _ in _WORD.finditer(response)), relation, num_words)


def number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    """`around` (Tülu 3 only) is within one sentence."""
    return holds(
        count_sentences(response, limit=num_sentences + 2), relation, num_sentences, slack=1
    )


def number_paragraphs(response: str, num_paragraphs: int, divider: str = "***") -> bool:
    """Exactly so many paragraphs between dividers; a divider at either end is no paragraph."""
    parts = divided(response, divider)
    return all(parts) and len(parts) == num_paragraphs


def nth_paragraph_first_word(
    response: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """Exactly so many paragraphs (blank lines between), the n-th beginning with the word."""
    paragraphs = [part.strip() for part in response.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()
