"""`ratio:`: shares of words, trigrams and kinds of sentence."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.ifbench.tokens import split_sentences, words
from posttrain.verifiers.constraints.treebank import tokens

_WORD = re.compile(r"\w+")
# NLTK's English list, as far as words without an apostrophe can meet it.
_STOP_WORDS_TEXT = """
a about above after again against ain all am an and any are aren as at be because been
before being below between both but by can couldn d did didn do does doesn doing don down
during each few for from further had hadn has hasn have haven having he her here hers
herself him himself his how i if in into is isn it its itself just ll m ma me mightn more
most mustn my myself needn no nor not now o of off on once only or other our ours ourselves
out over own re s same shan she should shouldn so some such t than that the their theirs
them themselves then there these they this those through to too under until up ve very was
wasn we were weren what when where which while who whom why will with won wouldn y you your
yours yourself yourselves
"""
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


def stop_words(response: str, percentage: int) -> bool:
    """At most this share of the words are stop words."""
    found = _WORD.findall(response.lower())
    return bool(found) and 100 * sum(w in _STOP_WORDS for w in found) <= percentage * len(found)


def sentence_type(response: str) -> bool:
    """Two sentences that end in a full stop for each that ends in a question mark."""
    stops, questions, _ = endings(response)
    return stops == 2 * questions


def sentence_balance(response: str) -> bool:
    """As many of each: full stop, question mark, exclamation mark."""
    return len(set(endings(response))) == 1


def endings(response: str) -> tuple[int, int, int]:
    """Sentences that end in `.`, `?` and `!`."""
    last = [sentence[-1] for sentence in split_sentences(response)]
    return last.count("."), last.count("?"), last.count("!")


def overlap(response: str, reference_text: str, percentage: int) -> bool:
    """This share of the response's different trigrams, within 2%, is the reference's."""
    own, other = trigrams(response), trigrams(reference_text)
    return bool(own) and abs(100 * len(own & other) / len(own) - percentage) <= 2


def trigrams(text: str) -> set[tuple[str, str, str]]:
    found = tokens(text)
    return set(zip(found, found[1:], found[2:], strict=False))


def sentence_words(response: str) -> bool:
    """Three sentences of one length in characters, no word used twice."""
    sentences = split_sentences(response)
    used = words(" ".join(sentences))
    return (
        len(sentences) == 3
        and len({len(sentence) for sentence in sentences}) == 1
        and len(set(used)) == len(used)
    )
