"""`count:`: words, names, numbers, punctuation."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.ifbench.tokens import PUNCTUATION, bare
from posttrain.verifiers.constraints.keywords import whole_word_count
from posttrain.verifiers.constraints.treebank import tokens

_CONJUNCTIONS_TEXT = """
and but for nor or so yet
"""
_CONJUNCTIONS = frozenset(_CONJUNCTIONS_TEXT.split())
NAMES_TEXT = """
Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander
Amelia Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel
Ella Jacob Scarlett Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher
Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan
"""
NAMES = tuple(NAMES_TEXT.split())
_PRONOUNS_TEXT = """
i me we us you he him she her it they them my mine our ours your yours his hers its their
theirs myself ourselves yourself yourselves himself herself itself themselves this that
these those who whom whose which what whoever whomever whatever whichever anybody anyone
anything everybody everyone everything nobody nothing somebody someone something each either
neither both all some any none
"""
_PRONOUNS = frozenset(_PRONOUNS_TEXT.split())
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_WORD = re.compile(r"\w+")


def word_count_range(response: str, min_words: int, max_words: int) -> bool:
    return min_words <= sum(1 for _ in _WORD.finditer(response)) <= max_words


def unique_word_count(response: str, N: int) -> bool:
    """At least so many different words, whatever their case."""
    return len({word.strip(PUNCTUATION) for word in response.lower().split()}) >= N


def conjunctions(response: str, small_n: int) -> bool:
    """At least so many different coordinating conjunctions."""
    found = {word.strip(PUNCTUATION).lower() for word in response.split()}
    return len(found & _CONJUNCTIONS) >= small_n


def person_names(response: str, N: int) -> bool:
    """At least so many different names of IFBench's fifty."""
    found = set(_WORD.findall(response))
    return sum(name in found for name in NAMES) >= N


def numbers(response: str, N: int) -> bool:
    """Exactly so many numbers in digits; `1,000.5` is one."""
    return len(re.findall(r"\d+", bare(response))) == N


def punctuation(response: str) -> bool:
    """Each of . , ! ? ; : and an interrobang besides."""
    without = response.replace("?!", "", 1)
    if without == response:
        without = response.replace("!?", "", 1)
    if without == response and "\u203d" not in response:
        return False
    return set(".,!?;:") <= set(without)


def words_japanese(response: str, N: int) -> bool:
    """Every N-th word holds a Japanese character; numbers and signs are passed over."""
    if N < 1:
        return False
    nth = (word.strip(PUNCTUATION) for word in response.split()[N - 1 :: N])
    return all(_JAPANESE.search(word) for word in nth if word and not word.isdigit())


def pronouns(response: str, N: int) -> bool:
    """At least so many pronouns; `she/her` are two."""
    return sum(t in _PRONOUNS for t in tokens(response.lower().replace("/", " "))) >= N


def keywords_multiple(
    response: str, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> bool:
    """The five keywords once, twice, three, five and seven times, as whole words."""
    wanted = ((keyword1, 1), (keyword2, 2), (keyword3, 3), (keyword4, 5), (keyword5, 7))
    return all(whole_word_count(response, keyword) == count for keyword, count in wanted)
