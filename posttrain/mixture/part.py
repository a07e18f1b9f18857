"""One source on its way into a mixture: what is done to its rows, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posttrain.decontamination import Decontaminator
from posttrain.filters import SetFilter
from posttrain.recipe import Source
from posttrain.sources import Opened, source_name
from posttrain.store import Store


@dataclass(frozen=True)
class Plan:
    """What is done to every row of a source.

    Attributes:
        kind: `text`, `conversation`, `preference` or `problem`.
        columns, format: as the recipe names them; the format is resolved to an adapter.
        verifier, remap: the verifier of problems (`UNVERIFIED`: of none), and other names for it.
        filters: specs of the source's filters and then of the stage's.
        finder: finds evaluation prompts; `None`: nobody looks.
    """

    kind: str
    columns: Mapping[str, str] = field(default_factory=dict)
    format: Any = None
    verifier: str | None = None
    remap: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[Any, ...] = ()
    finder: Decontaminator | None = None

    def of(self, source: Source) -> Plan:
        """The stage's plan for one of its sources."""
        return replace(
            self,
            columns=source.columns,
            format=source.format,
            verifier=self.verifier or source.verifier,
            filters=(*source.filters, *self.filters),
        )


def sets(rule: Any) -> bool:
    """Whether a filter remembers earlier rows."""
    return isinstance(rule, SetFilter)


@dataclass
class Part:
    """One source on its way into the mixture.

    Attributes:
        dropped: row of the store -> (step, reason): what came after reading.
        kept: rows of the store that may be drawn.
        matches: (row, evaluation set, its row, overlap).
    """

    source: Source
    opened: Opened
    plan: Plan
    store: Store
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    kept: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    taken: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    matches: list[tuple[int, int, int, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The source's name in metrics."""
        return source_name(self.source)
