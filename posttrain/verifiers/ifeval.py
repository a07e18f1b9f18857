"""IFEval (Zhou et al. 2023, arXiv:2311.07911): the share of a prompt's constraints that are met."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown
from posttrain.verifiers.constraints.arguments import READERS, Constraint, bind
from posttrain.verifiers.constraints.case import (
    capital_word_frequency,
    english_capital,
    english_lowercase,
)
from posttrain.verifiers.constraints.combination import repeat_prompt, two_responses
from posttrain.verifiers.constraints.content import number_placeholders, postscript
from posttrain.verifiers.constraints.format import (
    constrained_response,
    json_format,
    multiple_sections,
    number_bullet_lists,
    number_highlighted_sections,
    title,
)
from posttrain.verifiers.constraints.keywords import (
    existence,
    forbidden_words,
    frequency,
    letter_frequency,
)
from posttrain.verifiers.constraints.language import response_language
from posttrain.verifiers.constraints.length import (
    nth_paragraph_first_word,
    number_paragraphs,
    number_sentences,
    number_words,
)
from posttrain.verifiers.constraints.punctuation import no_comma
from posttrain.verifiers.constraints.startend import end_checker, quotation

INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:json_format": json_format,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:title": title,
    "keywords:existence": existence,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": frequency,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_words": number_words,
    "punctuation:no_comma": no_comma,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
}


@dataclass(frozen=True)
class Instructions:
    """A benchmark's constraints by their published ids, and how their arguments are read."""

    name: str
    table: Mapping[str, Callable[..., bool]]
    readers: Mapping[str, Callable[[Any], Any]]

    def read(self, ground_truth: Any) -> list[tuple[str, Constraint]]:
        """The constraints of a ground truth, each with its instruction id.

        Raises:
            VerifierError: it is not of IFEval's form, or names what does not exist.
        """
        value = read_structure(ground_truth)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]  # open-instruct wraps it in a list
        if isinstance(value, Mapping) and "func_name" in value:
            raise VerifierError(
                f"{self.name} got a ground truth with `func_name`, which is Tülu 3's form; "
                "use the verifier `ifeval_old`"
            )
        record = value if isinstance(value, Mapping) else {}
        ids = record.get("instruction_id_list", record.get("instruction_id"))
        if not isinstance(ids, list | tuple) or not ids:
            raise VerifierError(
                f"{self.name} needs a ground truth"
                ' {"instruction_id_list": [...], "kwargs": [...]}, '
                f"as an object or its JSON text, got {shown(ground_truth)}"
            )
        kwargs = record.get("kwargs") or [None] * len(ids)
        if not isinstance(kwargs, list | tuple) or len(kwargs) != len(ids):
            raise VerifierError(
                f"{self.name} needs one entry in `kwargs` for each of the {len(ids)} in "
                f"`instruction_id_list`, got {shown(kwargs)}"
            )
        return [(str(i), self._one(i, arguments)) for i, arguments in zip(ids, kwargs, strict=True)]

    def _one(self, instruction: Any, arguments: Any) -> Constraint:
        if not isinstance(instruction, str) or instruction not in self.table:
            near = difflib.get_close_matches(str(instruction), self.table, n=1, cutoff=0.0)
            raise VerifierError(
                f"{self.name} knows no instruction {shown(instruction)}; the nearest is {near[0]}, "
                f"all are: {', '.join(self.table)}"
            )
        arguments = read_structure(arguments) or {}
        if not isinstance(arguments, Mapping):
            raise VerifierError(
                f"the kwargs of {instruction} must be a mapping, got {shown(arguments)}"
            )
        return bind(self.table[instruction], arguments, instruction, self.readers)


OF_IFEVAL = Instructions("ifeval", INSTRUCTIONS, READERS)


def read_constraints(ground_truth: Any) -> list[tuple[str, Constraint]]:
    """The constraints of an IFEval ground truth, each with its instruction id."""
    return OF_IFEVAL.read(ground_truth)


def loose_variants(response: str) -> list[str]:
    """The 8 readings of IFEval's loose metric: without the first line, the last line or both
    (a greeting, a closing word), and each of these without asterisks (Markdown emphasis).
    """
    lines = response.split("\n")
    cuts = [lines, lines[1:], lines[:-1], lines[1:-1]]
    plain = ["\n".join(cut).strip() for cut in cuts]
    return plain + [variant.replace("*", "") for variant in plain]


def followed_of(
    instructions: Instructions, completion: str, ground_truth: Any, loose: bool
) -> list[tuple[str, bool]]:
    """Every constraint and whether it is met; loosely: by any variant. Empty text meets none."""
    response = answer_of(completion)
    variants = [v for v in (loose_variants(response) if loose else [response]) if v.strip()]
    return [
        (instruction, any(constraint(variant) for variant in variants))
        for instruction, constraint in instructions.read(ground_truth)
    ]


def followed(completion: str, ground_truth: Any, loose: bool = False) -> list[tuple[str, bool]]:
    """`followed_of` IFEval's instructions."""
    return followed_of(OF_IFEVAL, completion, ground_truth, loose)


def verdict_of(results: Sequence[tuple[str, bool]]) -> Verdict:
    """The share of constraints met, and the names of the others."""
    failed = [instruction for instruction, met in results if not met]
    score = (len(results) - len(failed)) / len(results)
    met = f"{len(results) - len(failed)} of {len(results)} constraints met"
    return Verdict(score, f"{met}; failed: {', '.join(failed)}" if failed else met)


@dataclass(frozen=True)
class IFEval:
    """The share of the constraints that the response meets, counted strictly.

    `whole`: 1 where all are met, else 0, which is IFEval's accuracy by prompt. As a reward it pays
    nothing for one constraint that costs another.
    """

    whole: bool = False

    def check_ground_truth(self, ground_truth: Any) -> None:
        read_constraints(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        verdict = verdict_of(followed(completion, ground_truth))
        return replace(verdict, score=float(verdict.score >= 1)) if self.whole else verdict
