"""Words as the Penn Treebank cuts them (Marcus et al. 1993), which IFEval and IFBench count."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.sentences import split_sentences

# Stops in the middle of a sentence stay with their word (`U.S.`); the last one does not.
_LAST_STOP = re.compile(r"(?<!\.)\.(?=[\])}>\"'\u00bb\u201d\u2019 ]*\Z)")
_ALONE = re.compile(
    r"\.{2,}|--|``|''|[:,](?![0-9])"
    r"|[;@#$%&?!*\[\](){}<>\"`\u00ab\u00bb\u2018\u2019\u201c-\u201e\u2012-\u2015]"
)
_OPENING = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_CLITIC = re.compile(r"(?<=[^'\s])((?:'[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T|')(?=\s|\Z))")
_JOINED = re.compile(r"\b(?:(can)(not)|(gon|got|wan)(n?a)|(gim|lem)(me))\b", re.IGNORECASE)
_LONGEST = 200_000


def tokens(text: str) -> list[str]:
    """The tokens of a text: `don't` is two, a comma one, a hyphenated word one."""
    found: list[str] = []
    for sentence in split_sentences(text[:_LONGEST]):
        sentence = _LAST_STOP.sub(" . ", sentence)
        sentence = _ALONE.sub(r" \g<0> ", _OPENING.sub("' ", sentence))
        sentence = _JOINED.sub(lambda m: " ".join(filter(None, m.groups())), sentence)
        found += _CLITIC.sub(r" \1", sentence).split()
    return found
