"""Capital and small letters."""

from __future__ import annotations

import re

from posttrain.verifiers.constraints.language import detect
from posttrain.verifiers.constraints.relation import holds, tenth

_TOKEN = re.compile(r"\w+(?:[-.'\u2019]\w+)*")


def english_capital(response: str) -> bool:
    """All letters are capitals, and nothing tells that the language is not English."""
    return response.isupper() and detect(response) in ("en", None)


def english_lowercase(response: str) -> bool:
    """All letters are small, and nothing tells that the language is not English."""
    return response.islower() and detect(response) in ("en", None)


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words are all in capitals; a hyphenated word is one."""
    count = sum(1 for match in _TOKEN.finditer(response) if match[0].isupper())
    return holds(count, capital_relation, capital_frequency, slack=tenth(capital_frequency))
