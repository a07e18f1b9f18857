"""A pattern that the completion must match, with a bound on the time that may take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, read_structure, shown
from posttrain.verifiers.bounded.patterns import matches

_FLAGS = {"i": re.I, "m": re.M, "s": re.S, "x": re.X, "a": re.A}
_KEYS = {"pattern", "flags", "mode", "negate"}
_MODES = ("search", "fullmatch", "match")


@dataclass(frozen=True)
class Regex:
    """Every pattern of the ground truth is found in the completion (or matches all of it).

    Attributes:
        max_length: longer completions are not read.
        cpu_seconds: what one pattern may use.
    """

    max_length: int = 200_000
    cpu_seconds: float = 0.7

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._patterns(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        patterns = self._patterns(ground_truth)
        text = answer_of(completion)
        if not text:
            return Verdict(0.0, "the completion is empty")
        if len(text) > self.max_length:
            return Verdict(0.0, f"{len(text)} characters are too long for an answer")
        for pattern, flags, mode, negate in patterns:
            found = matches(mode, pattern, flags, text, self.cpu_seconds)
            if found is None:
                return Verdict(0.0, f"{shown(pattern)} took too long to match", "timeout")
            if found is negate:
                return Verdict(0.0, f"{shown(pattern)} is{' not' * (not found)} there")
        return Verdict(1.0, f"{len(patterns)} of {len(patterns)} patterns hold")

    @staticmethod
    def _patterns(ground_truth: Any) -> list[tuple[str, int, str, bool]]:
        value = read_structure(ground_truth)
        if isinstance(ground_truth, str) and not isinstance(value, Mapping | list | str):
            value = ground_truth  # `7` is a pattern
        if isinstance(ground_truth, str) and isinstance(value, list) and not _are_patterns(value):
            value = ground_truth  # and so is `[1]`
        items = value if isinstance(value, list) else [value]
        if not items or not _are_patterns(items):
            raise VerifierError(
                'regex needs a pattern, {"pattern": ..., "flags": "ims", "mode": "search" or'
                f' "fullmatch", "negate": false}}, or a list of these, got {shown(ground_truth)}'
            )
        return [_read(item) for item in items]


def _are_patterns(items: list[Any]) -> bool:
    for item in items:
        record = item if isinstance(item, Mapping) else {"pattern": item}
        text = record.get("pattern")
        if not isinstance(text, str) or not text.strip() or set(record) - _KEYS:
            return False
    return True


def _read(item: Any) -> tuple[str, int, str, bool]:
    record = item if isinstance(item, Mapping) else {"pattern": item}
    mode, letters = record.get("mode", "search"), str(record.get("flags") or "")
    if mode not in _MODES or set(letters) - set(_FLAGS):
        raise VerifierError(
            f"regex needs a mode of {', '.join(_MODES)} and flags of {', '.join(_FLAGS)}, got"
            f" {shown(item)}"
        )
    flags = sum(_FLAGS[letter] for letter in set(letters))
    try:
        re.compile(record["pattern"], flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise VerifierError(
            f"regex needs a pattern of Python's `re`; {shown(record['pattern'])} is none: {error}"
        ) from error
    return record["pattern"], int(flags), mode, bool(record.get("negate"))
