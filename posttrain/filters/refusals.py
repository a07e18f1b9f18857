"""Drops rows whose answer declines, or speaks of itself as a model.

WebR (arXiv:2504.15573) drops apologies among its generated answers. Refusals that are wanted
(safety data) need to be spared: put the filter on the other sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from posttrain.filters.base import contents
from posttrain.formats import Row

_READ = 300  # a refusal opens the answer
_UNABLE = (
    r"(?:can(?:['\u2019]?t|not| not)|(?:am|['\u2019]m|are) (?:unable|not able)|unable to"
    r"|not able to|won['\u2019]?t|will not|do(?:n['\u2019]?t| not) have)\b"
)
_REFUSAL = re.compile(
    rf"\b(?:sorry|apologi[sz]e|apologies|unfortunately|i regret)\b[^.!?\n]{{0,80}}?\b{_UNABLE}"
    rf"|\A\W*i {_UNABLE} (?:to )?(?:assist|help|provide|comply|fulfil|answer|create|write"
    rf"|generate|engage|support|discuss|offer|give)\b",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"\b(?:as|i['\u2019]m(?: just)?|i am(?: just)?) an? (?:(?:large |ai )?language model"
    r"|ai (?:text-based )?(?:model|assistant|chatbot|system))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Refusals:
    """Reads the first 300 characters of each answer; `I'm sorry to hear that` is no refusal."""

    def __call__(self, row: Row) -> str | None:
        for answer in () if "text" in row else contents(row, "answer"):
            if _REFUSAL.search(answer[:_READ]):
                return "an answer refuses"
            if _MODEL.search(answer[:_READ]):
                return "an answer speaks of itself as a model"
        return None
