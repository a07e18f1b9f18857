"""Aya: human prompts and answers in 65 languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, text, value


@dataclass(frozen=True)
class Aya:
    r"""CohereForAI/aya_dataset.

        {"inputs": "Heestan waxaa qada Khalid Haref Ahmed \nOO ku Jiray Kooxdii Dur Dur!",
         "targets": "Habeen ma hurdoo\nAday horjoogoo …", "language": "Somali",
         "language_code": "som", "annotation_type": "original-annotations", …}

    Attributes:
        language: only rows of this language code, as `som`; `None`: all.
    """

    language: str | None = None

    def __call__(self, raw: Any) -> list[Row]:
        if self.language and value(raw, "language_code") != self.language:
            found = shown(value(raw, "language_code"))
            raise LeftOut(f"the row is in another language, got {found}")
        return [{"prompt": text(raw, "inputs"), "completion": text(raw, "targets")}]
