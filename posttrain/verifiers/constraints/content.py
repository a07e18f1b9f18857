"""Placeholders and a postscript."""

from __future__ import annotations

import re

_MARKERS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def number_placeholders(response: str, num_placeholders: int) -> bool:
    """At least so many `[placeholders]`, each within a line; brackets inside one count once."""
    count = 0
    for line in response.split("\n"):
        closed = 0
        while closed >= 0 and (opened := line.find("[", closed)) >= 0:
            closed = line.find("]", opened)
            count += closed >= 0
    return count >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    """The marker occurs; the two common ones may be written with spaces and in any case."""
    marker = postscript_marker.strip()
    pattern = _MARKERS.get(marker) or re.escape(marker.lower())
    return re.search(pattern, response.lower()) is not None
