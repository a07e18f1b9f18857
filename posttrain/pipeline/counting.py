"""Lines of progress for work that is counted in rows; imports nothing heavy."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


def say(line: str) -> None:
    """A line for the person who waits, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Counting:
    """Counts rows as they are worked through; short work says nothing."""

    def __init__(self, what: str) -> None:
        self.what, self.rows, self.bar = what, 0, None
        self.start = self.shown = time.monotonic()

    def __enter__(self) -> Counting:
        return self

    def __call__(self, source: str, rows: int) -> None:
        """`rows` more, of `source`."""
        self.rows += rows
        now = time.monotonic()
        if now - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        rate = self.rows / (now - self.start)
        say(f"{self.what}: {source}: {self.rows:,} rows, {rate:,.0f} rows/s")

    def __exit__(self, *error: Any) -> None:
        return None
