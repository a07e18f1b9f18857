"""How IFBench's checkers cut a text into sentences and words."""

from __future__ import annotations

import re
import string

from posttrain.verifiers.constraints.treebank import tokens

PUNCTUATION = string.punctuation + " "
_DELETE = str.maketrans("", "", string.punctuation)
_STARTERS = (
    r" (?:(?:He|She|It|They|Their|Our|We|But|However|That|This)\s"
    r"|Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|Wherever)"
)
# Full stops that end no sentence, or (the named groups) only before a word that begins one.
_HELD = re.compile(
    r"(?:Mr|Mrs|Ms|Dr|St)\.|Ph\.D\.|\.(?=com|net|org|io|gov|edu|me)|(?<=[0-9])\.(?=[0-9])"
    r"|(?P<acronym>(?:[A-Za-z]\.){2,3})|(?P<suffix>(?<= )(?:Inc|Ltd|Jr|Sr|Co)\.)"
    r"|(?<=\s)[A-Za-z]\."
)
_BEGINS = re.compile(_STARTERS)
_DOTS = re.compile(r"\.{2,}")
_QUOTED = re.compile(r"([.?!])(\")|(\.)(\u201d)")
_LONGEST = 200_000  # characters that are read
_STOP = re.compile(r"(?<=[.?!])|\x01")


def split_sentences(text: str) -> list[str]:
    """The sentences by IFBench's rules, each with its stop behind a closing quotation mark.

    Every `.`, `?` and `!` ends one (`1.` at the head of a list too, `?!` two), but for those of
    titles, initials, acronyms, decimals and host names; a line break ends none.
    """
    text = f" {text[:_LONGEST]}  ".replace("\n", " ")
    text = _DOTS.sub(lambda match: "\0" * len(match[0]) + "\x01", _HELD.sub(_hold, text))
    text = _QUOTED.sub(lambda match: (match[2] or match[4]) + (match[1] or match[3]), text)
    found = [part.replace("\0", ".").strip() for part in _STOP.split(text)]
    return found if found[-1] else found[:-1]


def _hold(match: re.Match[str]) -> str:
    held = match[0].replace(".", "\0")
    ends = match.lastgroup == "suffix" or match[0].isupper()
    if match.lastgroup and ends and _BEGINS.match(match.string, match.end()):
        return held[:-1] + "."
    return held


def bare(text: str) -> str:
    """The text without ASCII punctuation."""
    return text.translate(_DELETE)


def words(text: str) -> list[str]:
    """Lower case, without ASCII punctuation, split at spaces."""
    return bare(text.lower()).split()


def word_tokens(text: str) -> list[str]:
    """The tokens that hold a letter or digit."""
    return [token for token in tokens(text) if any(map(str.isalnum, token))]
