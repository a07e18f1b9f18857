"""Code that must pass tests (HumanEval, arXiv:2107.03374; MBPP, arXiv:2108.07732), in a jail.

The completion's last fenced block, or all of it, is loaded in one process and the tests run in
another, which only ever asks for values (see `sandbox/`). All tests must pass.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown
from posttrain.verifiers.sandbox.host import Limits, Outcome, judge_code

_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.M | re.S
)
_PYTHON = ("python", "py", "python3", "")
_KEYS = ("tests", "setup", "entry_point")


def code_of(completion: str) -> str:
    """The last fenced block of Python (or of no language), else the last block, else the text."""
    text = answer_of(completion)
    blocks = [(match[2].lower(), match[3]) for match in _FENCE.finditer(text + "\n")]
    python = [block for language, block in blocks if language in _PYTHON]
    if blocks:
        return (python or [block for _, block in blocks])[-1]
    _, opened, rest = text.partition("```")  # cut off before the fence closes
    return rest.partition("\n")[2] if opened else text


@dataclass(frozen=True)
class Code:
    """1 when the code passes every test, else 0.

    Attributes:
        partial: score the share of tests passed instead.
        max_length: longer code is not run.
    """

    limits: Limits = field(default_factory=Limits)
    partial: bool = False
    max_length: int = 200_000

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._read(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        tests = self._read(ground_truth)
        code = code_of(completion)
        if not code.strip():
            return Verdict(0.0, "no code in the completion")
        if len(code) > self.max_length:
            return Verdict(0.0, f"{len(code)} characters are too long for a solution")
        return self._verdict(judge_code(code, tests, self.limits), tests)

    def _verdict(self, outcome: Outcome, tests: dict[str, Any]) -> Verdict:
        total = max(len(tests["tests"]), outcome.done)
        if outcome.fault == "timeout":
            reason = f"not done after {self.limits.wall_seconds:g} seconds"
            return Verdict(0.0, reason, "timeout")
        if outcome.fault:
            return Verdict(0.0, "the process that judges the code ended without a result", "crash")
        if outcome.first is None and outcome.passed == total:
            return Verdict(1.0, f"{total} of {total} tests passed")
        number, why = outcome.first or (outcome.done + 1, "it was not reached")
        score = outcome.passed / total if self.partial else 0.0
        test = tests["tests"][number - 1] if number <= len(tests["tests"]) else "check"
        text = test if isinstance(test, str) else test["input"]
        return Verdict(
            score, f"test {number} of {total} fails: {shown(text)}" + f" ({why})" * bool(why)
        )

    @staticmethod
    def _read(ground_truth: Any) -> dict[str, Any]:
        """The tests in one form.

        Raises:
            VerifierError: they are in none, or no Python.
        """
        value = read_structure(ground_truth)
        record = {"tests": value} if isinstance(value, list | tuple) else value
        if not isinstance(record, Mapping) or not record.get("tests"):
            raise _refused(ground_truth)
        tests = record["tests"]
        tests = [tests] if isinstance(tests, str) else tests
        if not isinstance(tests, list | tuple):
            raise _refused(ground_truth)
        setup, entry = record.get("setup") or "", record.get("entry_point") or None
        runs = all(isinstance(t, Mapping) and {"input", "output"} <= set(t) for t in tests)
        if set(record) - set(_KEYS) or not isinstance(setup, str):
            raise _refused(ground_truth)
        if not runs:
            _check_python([setup, *tests], ground_truth)
            tests = list(tests)
        else:
            streams = [test[key] for test in tests for key in ("input", "output")]
            if not all(isinstance(stream, str | list | tuple) for stream in streams):
                raise _refused(ground_truth)
            tests = [{key: _text(test[key]) for key in ("input", "output")} for test in tests]
        if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
            raise _refused(ground_truth)
        return {"tests": tests, "setup": setup, "entry_point": entry, "runs": runs}


def _text(value: Any) -> str:
    """Standard input or output: a text, or its lines."""
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _check_python(statements: list[Any], ground_truth: Any) -> None:
    for statement in statements:
        try:
            ast.parse(statement)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise VerifierError(
                f"code needs tests that are Python statements; {shown(statement)} is none: {error}"
            ) from error


def _refused(ground_truth: Any) -> VerifierError:
    return VerifierError(
        'code needs a list of Python statements, or {"tests": [...], "setup": "...", "entry_point":'
        ' "..."} whose tests are statements or {"input": ..., "output": ...}, as an object or its'
        f" JSON text, got {shown(ground_truth)}"
    )
