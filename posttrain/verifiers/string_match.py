"""Exact match as SQuAD has it (Rajpurkar et al. 2016, arXiv:1606.05250).

Case, spacing, articles and punctuation do not count; signs of numbers and formulas do: `-5` is not
`5`, `2x+3` not `2x-3`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown, tagged_or_all

_QUOTES = string.whitespace + "\"'`*\u201c\u201d\u2018\u2019"
_ARTICLE = re.compile(r"(?:the|an|a) (?=.)")
_ARTICLES = re.compile(r"\b(?:the|an|a)\s+(?=\w)")
# Signs stay before a digit, and between two single letters or digits (`x+y`).
_PUNCTUATION = re.compile(
    r"(?![-+/=<>^.]\.?[0-9]|(?<=\b\w)[-+/=<>^]\w\b)"
    rf"[{re.escape(string.punctuation)}\u201c\u201d\u2018\u2019]"
)

_LONGEST = 20_000


def normalise(text: str) -> str:
    """Case-folded, single-spaced, without quotes, a final full stop or a leading article."""
    text = folded(text)
    text = text.lstrip(_QUOTES).rstrip(_QUOTES + ".,;:!?")
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text


def plain(text: str) -> str:
    """Case-folded and without punctuation and articles; a text of nothing else keeps its signs."""
    text = folded(text).replace("\u2212", "-")
    bare = _ARTICLES.sub("", _PUNCTUATION.sub("", text))
    return " ".join(bare.split()) or normalise(text)


def folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class StringMatch:
    """The completion, or the inside of its last `<answer>` tag, equals one of the ground truths.

    Attributes:
        tagged: the answer must stand in a closed `<answer>` tag, as under open-instruct's
            `string_matcher`.
    """

    tagged: bool = False

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._expected(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        expected = self._expected(ground_truth)
        answer = answer_of(completion)
        if self.tagged and not ("<answer>" in answer and "</answer>" in answer):
            return Verdict(0.0, "there is no <answer> tag in the completion")
        answer = tagged_or_all(answer)
        if len(answer) > max(_LONGEST, 2 * max(map(len, expected))):
            return Verdict(0.0, f"an answer of {len(answer)} characters is too long")
        if plain(answer) in expected:
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
        accepted = [plain(item) for item in values if isinstance(item, str)]
        if not accepted or not all(accepted):
            raise VerifierError(
                f"string_match needs a text, or a list of accepted texts, got {shown(ground_truth)}"
            )
        return accepted


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
