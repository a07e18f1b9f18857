"""Why a row was dropped, in words that many rows share and that fit on a line."""

from __future__ import annotations

import re

LONGEST = 300  # a row's own content may be long, and messages quote it


def countable(message: str, place: str = "") -> str:
    """What is wrong, without what this row holds and where it stands."""
    if place and message.startswith(f"{place} "):  # the line itself could not be read
        return "a line " + re.split(r"[:(;]", message.removeprefix(f"{place} "))[0].strip()
    return shorten(message.split(", got ")[0])


def shorten(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
