"""Tülu 3's instruction checks (Lambert et al. 2024, arXiv:2411.15124): one function, 1 or 0.

The functions keep the names and arguments of the published rows. Where the release's code was
wrong (always true, never true, `!` overlooked) they do what the constraint says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown
from posttrain.verifiers.constraints.arguments import Constraint, bind
from posttrain.verifiers.constraints.content import number_placeholders
from posttrain.verifiers.constraints.format import json_format, number_highlighted_sections, title
from posttrain.verifiers.constraints.keywords import existence, whole_word_count
from posttrain.verifiers.constraints.language import response_language
from posttrain.verifiers.constraints.punctuation import no_comma
from posttrain.verifiers.constraints.relation import holds, tenth
from posttrain.verifiers.constraints.release import RELEASED
from posttrain.verifiers.constraints.startend import quotation

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?!])\s")
_CAPITALS = re.compile(r"\b[A-Z]+\b")


def include_keywords(response: str, keyword_list: Sequence[str]) -> bool:
    return existence(response, keyword_list)


def keyword_frequency(response: str, word: str, N: int) -> bool:
    return whole_word_count(response, word) == N


def exclude_words(response: str, forbidden_words: Sequence[str]) -> bool:
    return not any(word.lower() in response.lower() for word in forbidden_words)


def letter_frequency(response: str, letter: str, N: int) -> bool:
    return response.count(letter) == N


def paragraph_count(response: str, N: int) -> bool:
    """A divider at either end is one too many, unlike under IFEval."""
    parts = response.split("* * *")
    return len(parts) == N and all(part.strip() for part in parts)


def word_constraint(response: str, N: int, quantifier: str) -> bool:
    return holds(len(response.split()), quantifier, N, slack=tenth(N))


def sentence_constraint(response: str, N: int, quantifier: str) -> bool:
    """A stop before a space ends one, but for `Mr.` and `e.g.`; `around` is within one."""
    return holds(len(_SENTENCE_END.split(response)), quantifier, N, slack=1)


def paragraphs(response: str, N: int, first_word: str, i: int) -> bool:
    parts = [part.strip() for part in response.split("\n\n") if part.strip()]
    if len(parts) != N or i > N:
        return False
    return re.match(rf"{re.escape(first_word.strip())}(?!\w)", parts[i - 1]) is not None


def postscript(response: str, postscript_marker: str) -> bool:
    return bool(response.partition(postscript_marker.strip())[2].strip())


def placeholders(response: str, N: int) -> bool:
    return number_placeholders(response, N)


def bullet_points(response: str, N: int) -> bool:
    return sum(line.strip()[:1] in ("*", "-") for line in response.split("\n")) == N


def choice(response: str, options: Sequence[str]) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(option)}(?!\w)", response) is not None for option in options
    )


def highlighted_sections(response: str, N: int) -> bool:
    return number_highlighted_sections(response, N)


def sections(response: str, N: int, section_splitter: str) -> bool:
    """A word marks a section when a number follows it or it begins a line; a sign always does."""
    mark = section_splitter.strip()
    pattern = re.escape(mark)
    if mark[-1].isalnum():
        pattern = rf"{pattern}\s?[0-9]|^[ \t#*]*{pattern}(?!\w)"
    return sum(1 for _ in re.finditer(pattern, response, re.IGNORECASE | re.MULTILINE)) >= N


def whole_json(response: str) -> bool:
    return json_format(response, fences=False)


def repeat_prompt(response: str, original_prompt: str) -> bool:
    return response.startswith(original_prompt.strip())


def capital_words(response: str, N: int, quantifier: str) -> bool:
    """Words of the letters A to Z; `around` allows 10%."""
    return holds(len(_CAPITALS.findall(response)), quantifier, N, slack=tenth(N))


def two_responses(response: str) -> bool:
    """Exactly one divider, unlike under IFEval, between two that differ."""
    parts = [part.strip() for part in response.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def end(response: str, end_phrase: str) -> bool:
    return response.endswith(end_phrase.strip())


FUNCTIONS: dict[str, Callable[..., bool]] = {
    "validate_choice": choice,
    "validate_end": end,
    "validate_forbidden_words": exclude_words,
    "validate_frequency_capital_words": capital_words,
    "validate_highlighted_sections": highlighted_sections,
    "validate_json_format": whole_json,
    "validate_lowercase": str.islower,
    "validate_no_commas": no_comma,
    "validate_paragraphs": paragraphs,
    "validate_placeholders": placeholders,
    "validate_quotation": quotation,
    "validate_repeat_prompt": repeat_prompt,
    "validate_response_language": response_language,
    "validate_sections": sections,
    "validate_title": title,
    "validate_two_responses": two_responses,
    "validate_uppercase": str.isupper,
    "validate_word_constraint": word_constraint,
    "verify_bullet_points": bullet_points,
    "verify_keyword_frequency": keyword_frequency,
    "verify_keywords": include_keywords,
    "verify_letter_frequency": letter_frequency,
    "verify_paragraph_count": paragraph_count,
    "verify_postscript": postscript,
    "verify_sentence_constraint": sentence_constraint,
}


@dataclass(frozen=True)
class IFEvalOld:
    """1 when the named function accepts the response, else 0.

    Attributes:
        strict_compat: the release's functions, faults included, under the name
            `ifeval_old_release`.
    """

    strict_compat: bool = False

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._read(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        name, constraint = self._read(ground_truth)
        response = answer_of(completion)
        if response and constraint(response):
            return Verdict(1.0, f"{name} is met")
        return Verdict(0.0, f"{name} is not met")

    def _read(self, ground_truth: Any) -> tuple[str, Constraint]:
        value = read_structure(ground_truth)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Mapping) or not isinstance(value.get("func_name"), str):
            raise VerifierError(
                'ifeval_old needs a ground truth {"func_name": ..., <its arguments>}, as an object '
                f"or its JSON text, got {shown(ground_truth)}; "
                "for `instruction_id_list` use the verifier `ifeval`"
            )
        name = value["func_name"]
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.0)
            raise VerifierError(
                f"ifeval_old knows no function {shown(name)}; the nearest is {near[0]}, "
                f"all are: {', '.join(FUNCTIONS)}"
            )
        arguments = {key: item for key, item in value.items() if key != "func_name"}
        table = FUNCTIONS | RELEASED if self.strict_compat else FUNCTIONS
        return name, bind(table[name], arguments, name)
