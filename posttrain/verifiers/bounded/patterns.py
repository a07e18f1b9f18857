"""Patterns and JSON schemas against text, with a bound on the CPU time of each question."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from posttrain.verifiers.bounded.process import Bounded

_MATCHER = Path(__file__).with_name("matcher.py")
# One process per process: a fork must not read the replies to its parent's questions.
_MATCHERS: dict[int, Bounded] = {}


def _ask(question: list[Any]) -> Any:
    pid = os.getpid()
    matcher = _MATCHERS.get(pid) or _MATCHERS.setdefault(pid, Bounded(_MATCHER))
    return matcher.ask(question)


def matches(kind: str, pattern: str, flags: int, text: str, cpu_seconds: float) -> bool | None:
    """Whether `re.search` or `re.fullmatch` (`kind`) finds anything; `None`: it takes too long."""
    found: bool | None = _ask([kind, cpu_seconds, pattern, flags, text])
    return found


def schema_faults(schema: Any, instance: Any, cpu_seconds: float) -> str | None:
    """The first fault of an instance, empty if there is none; `None`: it takes too long."""
    fault: str | None = _ask(["schema", cpu_seconds, schema, instance])
    return fault
