"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): the number after `####`, else the last one."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, shown

_DIGIT_COMMA = re.compile(r"(?<=[0-9])(?:,|\{,\})(?=[0-9])")
# A minus that follows a word, a digit or a closing bracket is a subtraction or a range, not a sign.
_NUMBER = re.compile(
    r"((?<![\w.)\]}%])[-\u2212]\$?)?([0-9]+(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)", re.ASCII
)

# The mark that ends a GSM8K solution; a number right after it is the answer, whatever follows.
_MARKED = re.compile(r"####[ \t]*(-?\$?[0-9.,]*[0-9])", re.ASCII)


def canonical(sign: str, digits: str) -> str:
    """One spelling per value, without arithmetic: `-007.50` is `-7.5`, `18.0` is `18`."""
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return f"-{value}" if sign and value != "0" else value


def last_number(text: str) -> str | None:
    """The last number of a text in canonical spelling, or `None`."""
    found = deque(_NUMBER.finditer(_DIGIT_COMMA.sub("", text)), maxlen=1)
    return canonical(found[0][1] or "", found[0][2]) if found else None


def stated_number(text: str) -> str | None:
    """The number after the last `####` that has one, as in GSM8K's own solutions; else the last."""
    marked = deque(_MARKED.finditer(text), maxlen=1)
    return last_number(marked[0][1] if marked else text)


@dataclass(frozen=True)
class GSM8K:
    """The number that the completion states must equal the ground truth's."""

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._expected(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        expected = self._expected(ground_truth)
        answer = stated_number(answer_of(completion))
        if answer is None:
            return Verdict(0.0, f"no number in the completion, expected {expected}")
        if answer == expected:
            return Verdict(1.0, f"the number is {shown(answer)}, as expected")
        return Verdict(0.0, f"the number is {shown(answer)}, expected {shown(expected)}")

    @staticmethod
    def _expected(ground_truth: Any) -> str:
        text = ground_truth
        if isinstance(ground_truth, int | float | Decimal) and not isinstance(ground_truth, bool):
            text = format(Decimal(str(ground_truth)), "f")
        number = last_number(text.rpartition("####")[2]) if isinstance(text, str) else None
        if number is None:
            raise VerifierError(
                f"gsm8k needs a ground truth with a number in it, got {shown(ground_truth)}; "
                "allowed: a number, its text, or a GSM8K answer that ends in `#### 72`"
            )
        return number
