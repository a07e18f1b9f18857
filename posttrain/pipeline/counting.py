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
    """Counts rows as they are worked through: a bar on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self.what, self.rows = what, 0
        self.bar: Any = None
        self.bars: dict[str, Any] = {}
        self.start = self.shown = time.monotonic()

    def __enter__(self) -> Counting:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                TextColumn("{task.completed:,} rows"),
                BarColumn(pulse_style="green"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        return self

    def __call__(self, source: str, rows: int) -> None:
        """`rows` more, of `source`."""
        self.rows += rows
        if self.bar is not None:
            if source not in self.bars:
                self.bars[source] = self.bar.add_task(f"{self.what}: {source}", total=None)
            self.bar.advance(self.bars[source], rows)
            return
        now = time.monotonic()
        if now - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        rate = self.rows / (now - self.start)
        say(f"{self.what}: {source}: {self.rows:,} rows, {rate:,.0f} rows/s")

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
