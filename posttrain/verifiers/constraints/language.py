"""The language of a response, told by langdetect (optional) with a fixed seed."""

from __future__ import annotations

import os
from typing import Any

from posttrain.errors import MissingExtraError

# langdetect itself reads no further; cutting first keeps its clean-up of long texts cheap.
_READ = 10_000


def _langdetect() -> Any:
    try:
        import langdetect
    except ImportError as error:
        raise MissingExtraError("langdetect", "eval", "a language constraint") from error
    langdetect.DetectorFactory.seed = 0
    return langdetect


def languages() -> set[str]:
    """The codes that can be told apart, and `zh` for either way of writing Chinese."""
    return {*os.listdir(_langdetect().PROFILES_DIRECTORY), "zh"} - {"__pycache__"}


def detect(text: str) -> str | None:
    """The language code of a text, or `None` when nothing in it tells."""
    langdetect = _langdetect()
    try:
        return langdetect.detect(text[:_READ])
    except langdetect.LangDetectException:
        return None


def response_language(response: str, language: str) -> bool:
    """The response is in the language; one without a word in it is in none."""
    found = detect(response)
    return found is not None and language in (found, found.partition("-")[0])
