"""Symbolic equality by math_verify, in a process of its own: `9^{9^{9}}` never finishes."""

from __future__ import annotations

import os
from pathlib import Path

from posttrain.verifiers.bounded.process import Bounded

_HELPER = Path(__file__).with_name("helper.py")


class Symbolic(Bounded):
    """The process that compares expressions."""

    def __init__(self) -> None:
        super().__init__(_HELPER, "math_verify")

    def equal(self, expected: str, answer: str, cpu_seconds: float) -> bool | None:
        """Whether two LaTeX expressions are equal; `None` when that takes too long to tell.

        Raises:
            VerifierError: the process does not start.
        """
        answered: bool | None = self.ask([expected, answer, cpu_seconds])
        return answered


# One process per process: a fork must not read the replies to its parent's questions.
_HELPERS: dict[int, Symbolic] = {}


def equal(expected: str, answer: str, cpu_seconds: float) -> bool | None:
    """Whether two LaTeX expressions are equal; `None` when that takes too long to tell."""
    helper = _HELPERS.get(os.getpid()) or _HELPERS.setdefault(os.getpid(), Symbolic())
    return helper.equal(expected, answer, cpu_seconds)
