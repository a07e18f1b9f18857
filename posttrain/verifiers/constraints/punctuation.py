"""Punctuation that must not occur."""

from __future__ import annotations


def no_comma(response: str) -> bool:
    """No comma anywhere."""
    return "," not in response
