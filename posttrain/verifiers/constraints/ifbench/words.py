"""`words:`: letters, lengths and places of words."""

from __future__ import annotations

import re
import string
from collections import Counter
from itertools import pairwise

from posttrain.verifiers.constraints.ifbench.speech import is_verb, syllables
from posttrain.verifiers.constraints.ifbench.tokens import (
    PUNCTUATION,
    bare,
    split_sentences,
    word_tokens,
    words,
)
from posttrain.verifiers.constraints.treebank import tokens

_CLUSTER = re.compile(r"[b-df-hj-np-tv-z]{2}")
_PRIMES = frozenset(
    n for n in range(2, 100) if all(n % divisor for divisor in range(2, int(n**0.5) + 1))
)


def alphabet(response: str) -> bool:
    """Each word begins with the letter after that of the one before; A follows Z."""
    firsts = [word[0] for word in words(response)]
    places = [string.ascii_lowercase.find(first) for first in firsts]
    if not places or -1 in places:
        return False
    return all((a + 1) % 26 == b for a, b in pairwise(places))


def vowel(response: str) -> bool:
    """One paragraph with at most three of the vowels."""
    return "\n" not in response.strip() and len(set(response.lower()) & set("aeiou")) <= 3


def consonants(response: str) -> bool:
    """Two consonants stand together in each word."""
    return all(_CLUSTER.search(word) for word in response.lower().split())


def palindrome(response: str) -> bool:
    """At least ten palindromes of five characters or more."""
    return sum(len(word) >= 5 and word == word[::-1] for word in words(response)) >= 10


def prime_lengths(response: str) -> bool:
    return all(len(word) in _PRIMES for word in bare(response).split())


def repeats(response: str, small_n: int) -> bool:
    """No word more often than this."""
    return max(Counter(words(response)).values(), default=0) <= small_n


def no_consecutive(response: str) -> bool:
    """No two words in a row begin with the same letter."""
    return all(a[0] != b[0] for a, b in pairwise(words(response)))


def last_first(response: str) -> bool:
    """The last word of a sentence is the first of the next."""
    for before, after in pairwise(split_sentences(response)):
        last, first = before.rstrip(PUNCTUATION).split(), after.lstrip(PUNCTUATION).split()
        if not last or not first or last[-1].lower() != first[0].lower():
            return False
    return True


def paragraph_last_first(response: str) -> bool:
    """Each line ends with the word that it begins with."""
    lines = (line.strip().lower().strip(PUNCTUATION).split() for line in response.split("\n"))
    return all(line[0] == line[-1] for line in lines if line)


def keywords_specific_position(response: str, keyword: str, n: int, m: int) -> bool:
    """The keyword is the m-th word of the n-th sentence."""
    sentences = split_sentences(response)
    found = word_tokens(sentences[n - 1]) if n <= len(sentences) else []
    return m <= len(found) and found[m - 1].lower() == keyword.strip().lower()


def words_position(response: str, keyword: str) -> bool:
    """The keyword is the second word and the last but one."""
    found = [token.lower() for token in word_tokens(response)]
    return len(found) > 1 and found[1] == found[-2] == keyword.strip().lower()


def start_verb(response: str) -> bool:
    """The first word is a verb, told by a list of the usual ones and their endings."""
    found = tokens(response[:1000])
    return bool(found) and is_verb(found[0])


def odd_even_syllables(response: str) -> bool:
    """Words with odd and even numbers of syllables by turns, told by rules."""
    parities = [syllables(word) % 2 for word in words(response)]
    return all(a != b for a, b in pairwise(parities))
