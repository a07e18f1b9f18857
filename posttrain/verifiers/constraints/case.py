"""Capital and small letters."""

from __future__ import annotations

from posttrain.verifiers.constraints.language import detect
from posttrain.verifiers.constraints.relation import holds, tenth
from posttrain.verifiers.constraints.treebank import tokens


def english_capital(response: str) -> bool:
    """All letters are capitals, and nothing tells that the language is not English."""
    return response.isupper() and detect(response) in ("en", None)


def english_lowercase(response: str) -> bool:
    """All letters are small, and nothing tells that the language is not English."""
    return response.islower() and detect(response) in ("en", None)


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words are all in capitals; a hyphenated word is one, `I'M` two."""
    count = sum(map(str.isupper, tokens(response)))
    return holds(count, capital_relation, capital_frequency, slack=tenth(capital_frequency))
