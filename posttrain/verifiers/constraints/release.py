"""Tülu 3's constraint functions as released, faults and all, to match its curves.

Only those that differ from ours; `posttrain/verifiers/ifeval_old.py` uses them when asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from posttrain.verifiers.constraints.relation import holds

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")


def placeholders(response: str, N: int) -> bool:
    """Always true: the release returned a tuple, which is never empty."""
    return True


def choice(response: str, options: Sequence[str]) -> bool:
    """The response stands in an option, where an option should stand in the response."""
    return any(response in option for option in options)


def sentence_constraint(response: str, N: int, quantifier: str) -> bool:
    """`!` ends no sentence."""
    return holds(len(_SENTENCE_END.split(response)), quantifier, N, slack=1)


def capital_words(response: str, N: int, quantifier: str) -> bool:
    """`around` is exact; words of letters A to Z only."""
    return holds(len(re.findall(r"\b[A-Z]+\b", response)), quantifier, N)


def sections(response: str, N: int, section_splitter: str) -> bool:
    """Exactly so many parts between splitters, wherever they stand."""
    parts = response.split(section_splitter)
    return len(parts) - (parts[0] == "") == N


def paragraphs(response: str, N: int, first_word: str, i: int) -> bool:
    """Blank paragraphs count; the first word may go on."""
    parts = response.split("\n\n")
    return len(parts) == N and 1 <= i <= N and parts[i - 1].strip().startswith(first_word)


def highlighted_sections(response: str, N: int) -> bool:
    """Empty highlights count."""
    return len(re.findall(r"\*(.*?)\*", response)) >= N


def keyword_frequency(response: str, word: str, N: int) -> bool:
    """A phrase is never found."""
    return re.findall(r"\b\w+\b", response.lower()).count(word.lower()) == N


def two_responses(response: str) -> bool:
    """An empty response counts."""
    parts = [part.strip() for part in response.split("******")]
    return len(parts) == 2 and parts[0] != parts[1]


def title(response: str) -> bool:
    """An empty title counts."""
    return re.search(r"<<(.*?)>>", response) is not None


def uppercase(response: str) -> bool:
    """Text without letters counts."""
    return response == response.upper()


def lowercase(response: str) -> bool:
    """Text without letters counts."""
    return response == response.lower()


def quotation(response: str) -> bool:
    """One sign is both quotation marks."""
    return response.startswith('"') and response.endswith('"')


RELEASED: dict[str, Callable[..., bool]] = {
    "validate_choice": choice,
    "validate_frequency_capital_words": capital_words,
    "validate_highlighted_sections": highlighted_sections,
    "validate_lowercase": lowercase,
    "validate_paragraphs": paragraphs,
    "validate_placeholders": placeholders,
    "validate_quotation": quotation,
    "validate_sections": sections,
    "validate_title": title,
    "validate_two_responses": two_responses,
    "validate_uppercase": uppercase,
    "verify_keyword_frequency": keyword_frequency,
    "verify_sentence_constraint": sentence_constraint,
}
