"""MATH (Hendrycks et al. 2021, arXiv:2103.03874), graded as Tülu 3 does: any candidate counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, shown, tagged_or_all
from posttrain.verifiers.latex.candidates import candidates, last_boxed
from posttrain.verifiers.latex.normalise import normalise, rational
from posttrain.verifiers.latex.symbolic import equal

# Read as products of letters, `evil` would equal `live`.
_WORD = re.compile(r"(?<![\\a-zA-Z])(?!sqrt|frac)[a-zA-Z]{4,}")
# Only a hostile answer has these: towers of powers, huge exponents or factorials, deep brackets.
_EXPLOSIVE = re.compile(
    r"(?:\^|\*\*)[{(]*[0-9]+[})]*(?:\^|\*\*)|(?:\^|\*\*)[{(]*[0-9]{4}|[0-9]{4}[})]*!|[0-9]{40}|[({\[]{9}"
)
# math_verify takes `t` for a unit, so that `4t` would equal `4`.
_VARIABLE = re.compile(r"(?<![\\a-zA-Z])[a-df-hj-zA-DF-HJ-Z](?!.*=)")
_BASE = re.compile(r"_\{?([0-9]+)")
_BRACKET = re.compile(r"\A(\(|\[|\\\{)(?=.*,)")


@dataclass(frozen=True)
class Math:
    """Some candidate answer equals the ground truth: as text, as a number, or symbolically.

    Attributes:
        max_length: longer candidates are not read at all.
        max_symbolic: longer ones are compared as text only.
        cpu_seconds: what one symbolic comparison may use.
    """

    max_length: int = 2000
    max_symbolic: int = 300
    cpu_seconds: float = 0.7

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._expected(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        expected = self._expected(ground_truth)
        found = candidates(tagged_or_all(answer_of(completion)))
        reasons = []
        for candidate in found:
            if len(candidate) > self.max_length:
                reasons.append(f"{shown(candidate)} is too long for an answer")
                continue
            is_equal, how = self._compare(expected, normalise(candidate))
            if is_equal:
                return Verdict(1.0, f"{shown(candidate)} {how} {shown(expected)}")
            reasons.append(f"{shown(candidate)} {how} {shown(expected)}")
        return Verdict(0.0, "; ".join(reasons) or "the completion is empty")

    def _compare(self, expected: str, answer: str) -> tuple[bool, str]:
        """Whether the two are equal, and the verb that says how."""
        if answer == expected:
            return True, "equals"
        numbers = rational(expected), rational(answer)
        if None not in numbers:
            is_equal = numbers[0] == numbers[1]
        elif not self._is_comparable(expected, answer):
            is_equal = False
        else:
            verdict = equal(expected, answer, self.cpu_seconds)
            if verdict is None:
                return False, "took too long to compare with"
            is_equal = verdict
        return is_equal, "has the value of" if is_equal else "does not equal"

    def _is_comparable(self, expected: str, answer: str) -> bool:
        if not answer or max(len(expected), len(answer)) > self.max_symbolic:
            return False
        if any(p.search(side) for p in (_WORD, _EXPLOSIVE) for side in (expected, answer)):
            return False
        is_number = [rational(side) is not None for side in (expected, answer)]
        if any(is_number) and any(map(_VARIABLE.search, (expected, answer))):
            return False
        # What math_verify overlooks: the base of a number, and that a pair is no set.
        for pattern in (_BASE, _BRACKET):
            kinds = pattern.findall(expected), pattern.findall(answer)
            if all(kinds) and kinds[0] != kinds[1]:
                return False
        return True

    def _expected(self, ground_truth: Any) -> str:
        value = ground_truth
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            boxed = last_boxed(value)
            value = value if boxed is None else boxed
            expected = normalise(value) if len(value) <= self.max_length else ""
            if expected:
                return expected
        raise VerifierError(
            f"math needs an answer in LaTeX (or a solution with \\boxed{{...}}) of at most "
            f"{self.max_length} characters, got {shown(ground_truth)}"
        )
