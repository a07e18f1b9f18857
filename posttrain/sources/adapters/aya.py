"""Aya: human prompts and answers in 65 languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, text, value


@dataclass(frozen=True)
class Aya:
    """CohereForAI/aya_dataset.

        {"inputs": "…", "targets": "…", "language": "Tamil", "language_code": "tam",
         "annotation_type": "original-annotations", "user_id": "…"}

    Attributes:
        language: only rows of this language code; `None`: all.
    """

    language: str | None = None

    def __call__(self, raw: Any) -> list[Row]:
        if self.language and value(raw, "language_code") != self.language:
            found = shown(value(raw, "language_code"))
            raise LeftOut(f"the row is in another language, got {found}")
        return [{"prompt": text(raw, "inputs"), "completion": text(raw, "targets")}]
