"""How IFBench's checkers cut a text into words; its Treebank tokens by rules."""

from __future__ import annotations

import re
import string

from posttrain.verifiers.constraints.sentences import split_sentences

PUNCTUATION = string.punctuation + " "
_DELETE = str.maketrans("", "", string.punctuation)
_TOKEN = re.compile(
    r"[0-9]+(?:[.,:][0-9]+)+|\w+?(?=n't\b)|n't\b|'(?:s|m|d|ll|re|ve)\b"
    r"|\w+(?:(?:[-./&@]|'(?!(?:s|m|d|ll|re|ve)\b))\w+)*|\.\.\.|--|``|''|[^\w\s]",
    re.IGNORECASE,
)
_LONGEST = 200_000


def bare(text: str) -> str:
    """The text without ASCII punctuation."""
    return text.translate(_DELETE)


def words(text: str) -> list[str]:
    """Lower case, without ASCII punctuation, split at spaces."""
    return bare(text.lower()).split()


def tokens(text: str) -> list[str]:
    """Treebank's tokens: `don't` is two, a comma one, a hyphenated word one."""
    found: list[str] = []
    for sentence in split_sentences(text[:_LONGEST]):
        found += _TOKEN.findall(sentence)
    return found


def word_tokens(text: str) -> list[str]:
    """The tokens that hold a letter or digit."""
    return [token for token in tokens(text) if any(map(str.isalnum, token))]
