"""How a response begins and ends."""

from __future__ import annotations


def end_checker(response: str, end_phrase: str) -> bool:
    """The response ends with the phrase, in any case; closing quotation marks are ignored."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """The whole response stands in double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'
