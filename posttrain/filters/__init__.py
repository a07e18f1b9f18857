"""row -> `None` (keep) or the reason to drop it. One file per rule; its name is in the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from posttrain.errors import build
from posttrain.filters.empty_turns import EmptyTurns
from posttrain.filters.exact_duplicates import ExactDuplicates
from posttrain.formats import Row

Filter = Callable[[Row], str | None]

FILTERS = {
    "empty_turns": EmptyTurns,
    "exact_duplicates": ExactDuplicates,
}


def get_filters(specs: Sequence[Any]) -> list[Filter]:
    """The filters that a recipe names, fresh: some remember the rows they have seen."""
    return [build("filter", FILTERS, spec) for spec in specs]
