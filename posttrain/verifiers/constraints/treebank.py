"""Words as the Penn Treebank cuts them (Marcus et al. 1993), which IFEval and IFBench count."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.sentences import split_sentences

# Stops in the middle of a sentence stay with their word (`U.S.`); the last one does not.
_LAST_STOP = re.compile(r"(?<!\.)\.(?=[\])}>\"'\u00bb\u201d\u2019 ]*$)", re.MULTILINE)
_ALONE = re.compile(
    r"\.{2,}|--|``|''|[:,](?![0-9])"
    r"|[;@#$%&?!*\[\](){}<>\"`\u00ab\u00bb\u2018\u2019\u201c-\u201e\u2012-\u2015]"
)
_OPENING = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_CLITIC = re.compile(r"(?<=[^'\s])((?:'[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T|')(?=\s|\Z))")
_JOINED = re.compile(r"\b(?:(can)(not)|(gon|got|wan)(n?a)|(gim|lem)(me))\b", re.IGNORECASE)
_LONGEST = 100_000


def tokens(text: str) -> list[str]:
    """The tokens of a text: `don't` is two, a comma one, a hyphenated word one."""
    sentences = split_sentences(text[:_LONGEST])
    text = "\n".join(" ".join(sentence.split()) for sentence in sentences)
    text = _ALONE.sub(r" \g<0> ", _OPENING.sub("' ", _LAST_STOP.sub(" . ", text)))
    text = _JOINED.sub(lambda match: " ".join(filter(None, match.groups())), text)
    return _CLITIC.sub(r" \1", text).split()
