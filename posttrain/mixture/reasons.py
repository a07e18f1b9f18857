"""Why a row was dropped, in words that many rows share and that fit on a line."""

from __future__ import annotations

import re

from posttrain.errors import PosttrainError
from posttrain.sources import BadRow

LONGEST = 300  # a row's own content may be long, and messages quote it


def countable(error: PosttrainError) -> str:
    """What is wrong, without what this row holds and where it stands."""
    if isinstance(error, BadRow):
        return shorten("a line " + re.split(r", got |[:(;]", error.why)[0])
    return shorten(str(error).split(", got ")[0])


def shorten(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
