"""The letter of a choice (MMLU, arXiv:2009.03300, and its kin), as models write it."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown, tagged_or_all
from posttrain.verifiers.latex.candidates import last_boxed
from posttrain.verifiers.string_match import normalise

_WRAP = r"[\s*_`\"'(\[{$]*"
_BARE = re.compile(r"(?:\\(?:text|mathrm|mathbf|textbf)\{)?[\s(\[*]*([A-Za-z])[\s)\]}.:*]*\Z")
# "the answer is (B)", "Answer: B", else "choose option B"; a letter that begins a word is none, nor
# is one that is said to be wrong.
_SAID = (
    r"\b(?:\s+(?:is|(?:would|should|must) be|letter|option|choice|[:=]))*\s*[:=]?"
    rf"{_WRAP}(?:option\s+|choice\s+)?{_WRAP}(?:\\(?:boxed|text)\{{)?\s*([A-Za-z])(?![\w'])"
    r"(?!\W+(?:is|was|are)\s+(?:not|incorrect|wrong|false)\b)"
)
_ANSWER = re.compile(r"\banswers?" + _SAID, re.IGNORECASE)
_CHOSEN = re.compile(r"\b(?:choice|option|pick|choose|select)s?" + _SAID, re.IGNORECASE)
_LINE = re.compile(r"^[ \t*_`(\[]*([A-Z])[ \t]*(?:[)\].:*_`]+(?=\s|\Z)|[ \t]*$)", re.M)
_BRACKETED = re.compile(r"[(\[]([A-Za-z])[)\]]")
_ALONE = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")
_VERB = "is|was|are|and|or|because|since|seems|would|but"
_WINDOW = 20_000


@dataclass(frozen=True)
class MultipleChoice:
    """The letter that the completion settles on, or the text of a choice, is the right one."""

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._expected(ground_truth, ())

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        listed = row.get("choices")
        choices = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ()
        expected, choices = self._expected(ground_truth, choices)
        letters = string.ascii_uppercase[: len(choices) or 26]
        found = letter_of(tagged_or_all(answer_of(completion)), letters, choices)
        if found == expected:
            return Verdict(1.0, f"the answer is {found}, as expected")
        return Verdict(0.0, f"the answer is {found or 'no choice'}, expected {expected}")

    @staticmethod
    def _expected(ground_truth: Any, choices: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """The right letter, and the choices where they are known.

        Raises:
            VerifierError: the ground truth names no choice.
        """
        value = read_structure(ground_truth)
        if isinstance(value, Mapping):
            choices = value.get("choices") or choices
            value = value.get("answer")
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 26:
            value = string.ascii_uppercase[value]
        bare = _BARE.match(value) if isinstance(value, str) else None
        if bare:
            return bare[1].upper(), choices
        texts = [normalise(str(choice)) for choice in choices]
        if isinstance(value, str) and value.strip() and normalise(value) in texts:
            return string.ascii_uppercase[texts.index(normalise(value))], choices
        raise VerifierError(
            'multiple_choice needs a letter, an index from 0, or {"answer": ..., "choices": [...]},'
            f" got {shown(ground_truth)}"
        )


def letter_of(text: str, letters: str, choices: Sequence[Any] = ()) -> str | None:
    """The letter that a text settles on: boxed, then stated last, then alone on a line, in
    brackets or on its own; else that of the choice whose text it is.
    """
    text = text[-_WINDOW:]
    boxed = last_boxed(text)
    bare = _BARE.match(boxed or text)
    if bare and bare[1].upper() in letters:
        return bare[1].upper()
    for pattern in (_ANSWER, _CHOSEN, _LINE, _BRACKETED, _ALONE):
        found = [match[1] for match in pattern.finditer(text) if _is_letter(match, letters)]
        if found:
            return found[-1].upper()
    texts = [normalise(str(choice)) for choice in choices]
    whole = normalise(boxed or text)
    if whole in texts:
        return letters[texts.index(whole)]
    ending = [i for i, choice in enumerate(texts) if choice and f" {whole}".endswith(f" {choice}")]
    longest = max((len(texts[i]) for i in ending), default=0)  # `hot dog` ends in `dog` too
    ending = [i for i in ending if len(texts[i]) == longest]
    return letters[ending[0]] if len(ending) == 1 else None


def _is_letter(match: re.Match[str], letters: str) -> bool:
    """A small `a` or `i`, or `A` before a word that is no verb, is an article or a pronoun."""
    letter = match[1]
    if letter.upper() not in letters:
        return False
    if match.re not in (_ANSWER, _CHOSEN, _ALONE) or letter not in "aAiI":
        return True
    after = match.string[match.end() : match.end() + 9]
    return letter.isupper() and not re.match(rf"[ \t]+(?!(?:{_VERB})\b)[A-Za-z]", after)
