"""Normalised exact match: case, spacing, quotes, a final full stop and an article do not count."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown

# Brackets and signs stay (`-5` is not `5`), and so does a point in front of a number.
_QUOTES = string.whitespace + "\"'`*\u201c\u201d\u2018\u2019"
_ARTICLE = re.compile(r"(?:the|an|a) (?=.)")


def normalise(text: str) -> str:
    """Case-folded, single-spaced, without quotes, a final full stop or a leading article."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.lstrip(_QUOTES).rstrip(_QUOTES + ".,;:!?")
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text


@dataclass(frozen=True)
class StringMatch:
    """The completion, or the inside of its last `<answer>` tag, equals one of the ground truths."""

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._expected(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        expected = self._expected(ground_truth)
        answer = answer_of(completion)
        _, opened, tagged = answer.rpartition("<answer>")
        if opened:
            answer = tagged.partition("</answer>")[0]
        if normalise(answer) in expected:
            return Verdict(1.0, f"the answer is {shown(answer)}, as expected")
        return Verdict(0.0, f"the answer is {shown(answer)}, expected {shown(expected[0])}")

    @staticmethod
    def _expected(ground_truth: Any) -> list[str]:
        value = ground_truth
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        elif isinstance(value, str) and value.strip().startswith(("[", '"')):
            value = read_structure(value)
            if not _is_texts(value) and not isinstance(value, str):
                value = ground_truth  # `[1, 2]` is itself the answer
        values = value if _is_texts(value) else [value]
        accepted = [normalise(item) for item in values if isinstance(item, str)]
        if not accepted or not all(accepted):
            raise VerifierError(
                f"string_match needs a text, or a list of accepted texts, got {shown(ground_truth)}"
            )
        return accepted


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
