"""Drops conversations whose answers name other assistants or their makers.

Tülu 3 (arXiv:2411.15124 section 4.1; open-instruct, scripts/data/sft/utils.py): its list of
names, searched in assistant turns as whole words, whatever their case.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from posttrain.filters.base import contents
from posttrain.formats import Row

# GPT-4o, GPT-4-turbo and GPT-5 came after the list and are read as its variants.
_TULU = r"open ?ai|chat ?gpt|gpt[- ]?[345](?:\.\d)?o?|bing ?chat|laion|open ?assistant"


@functools.lru_cache(maxsize=16)
def _names(extra: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = [f"(?i:{_TULU})"]
    for name in extra:
        # Bard, Palm or Gemini are other things in lower case
        written = re.escape(name)
        alternatives.append(written if name != name.lower() else f"(?i:{written})")
    return re.compile(rf"(?<!\w)(?:{'|'.join(alternatives)})(?!\w)")


@dataclass(frozen=True)
class OtherAssistants:
    """Whole words: `ChatGPT's` and `gpt-4-all` are found, `gpt4all` and `openai_key` are not.

    Attributes:
        extra: more names. One with a capital letter is found only as written (`Gemini`), one
            without in any case (`mistral`).
    """

    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        extra = (self.extra,) if isinstance(self.extra, str) else tuple(self.extra)
        if not all(isinstance(name, str) and name.strip() for name in extra):
            raise ValueError("`extra` must be a list of names")
        object.__setattr__(self, "extra", extra)

    def __call__(self, row: Row) -> str | None:
        names = _names(self.extra)
        if "text" not in row and any(map(names.search, contents(row, "answer"))):
            return "an answer names another assistant"
        return None
