"""Keeps rows written in given languages, told by langdetect (optional) with a fixed seed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from posttrain.errors import MissingExtraError, nearest
from posttrain.filters.base import FIELDS, check_option, contents
from posttrain.formats import Row

# langdetect learns little from more, and its clean-up of long texts is slow.
_READ = 2_000


def _langdetect() -> Any:
    try:
        import langdetect
    except ImportError as error:
        raise MissingExtraError("langdetect", "eval", "the language filter") from error
    langdetect.DetectorFactory.seed = 0
    return langdetect


@dataclass(frozen=True)
class Language:
    """The likeliest language must be among those allowed. Takes milliseconds per row.

    Attributes:
        languages: codes as `en`, `de`, `zh-cn`; `zh` stands for either way of writing Chinese.
        min_probability: of the allowed languages together.
        fields: `all` (user and assistant), `prompt` or `answer`.
        min_letters: a text with fewer letters (code, a sum, a name) is in no language.
        unknown: `keep` or `drop` such a text.

    Raises:
        ValueError: an unknown language or option.
        MissingExtraError: langdetect is not installed.
    """

    languages: tuple[str, ...] = ("en",)
    min_probability: float = 0.5
    fields: str = "all"
    min_letters: int = 20
    unknown: str = "keep"

    def __post_init__(self) -> None:
        given = self.languages
        object.__setattr__(self, "languages", (given,) if isinstance(given, str) else tuple(given))
        check_option("fields", self.fields, FIELDS)
        check_option("unknown", self.unknown, ("keep", "drop"))
        if not self.languages or not 0 < self.min_probability <= 1:
            raise ValueError("needs `languages`, and a `min_probability` above 0 and at most 1")
        known = {"zh", *os.listdir(_langdetect().PROFILES_DIRECTORY)} - {"__pycache__"}
        for code in self.languages:
            if code not in known:
                raise ValueError(f"langdetect knows no language {code!r}{nearest(code, known)}")

    def __call__(self, row: Row) -> str | None:
        text = "\n".join(contents(row, self.fields))[:_READ]
        if not text:
            return None
        found = self._probabilities(text)
        if not found:
            return "the language cannot be told" if self.unknown == "drop" else None
        share = sum(p for code, p in found if self._allows(code))
        if self._allows(found[0][0]) and share >= self.min_probability:
            return None
        return f"the language is not {' or '.join(self.languages)}, got {found[0][0]}"

    def _allows(self, code: str) -> bool:
        return code in self.languages or code.partition("-")[0] in self.languages

    def _probabilities(self, text: str) -> list[tuple[str, float]]:
        if sum(map(str.isalpha, text)) < self.min_letters:
            return []
        langdetect = _langdetect()
        try:
            return [(found.lang, found.prob) for found in langdetect.detect_langs(text)]
        except langdetect.LangDetectException:
            return []
