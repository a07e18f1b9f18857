"""row -> `None` (keep) or the reason to drop it. One file per rule or paper, named in the table.

A filter is a frozen dataclass with its options as fields and `__call__(row) -> str | None`.
It is stateless and can be pickled, so it runs in worker processes. Rows are dropped and counted
by reason: a reason names no value of the row but after ", got ", which is cut off when counted.

A filter that answers `Flag(reason)` keeps the row; the reason is counted under "flagged".

A filter that compares rows with each other is a `SetFilter`: `mark(row)` (stateless, in workers)
makes a few bytes of a row, `judge(mark)` decides in the order of the rows, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from posttrain.errors import build
from posttrain.filters.base import Filter, Flag, SetFilter
from posttrain.filters.chatty_prefaces import ChattyPrefaces
from posttrain.filters.empty_turns import EmptyTurns
from posttrain.filters.exact_duplicates import ExactDuplicates
from posttrain.filters.gopher_quality import GopherQuality
from posttrain.filters.gopher_repetition import GopherRepetition
from posttrain.filters.language import Language
from posttrain.filters.length import Length
from posttrain.filters.lima import Lima
from posttrain.filters.near_duplicates import NearDuplicates
from posttrain.filters.other_assistants import OtherAssistants
from posttrain.filters.pii import PII
from posttrain.filters.refusals import Refusals
from posttrain.filters.repeated_turns import RepeatedTurns
from posttrain.filters.rouge_novelty import RougeNovelty
from posttrain.filters.self_instruct import SelfInstruct

__all__ = ["FILTERS", "Filter", "Flag", "SetFilter", "get_filters"]

FILTERS: dict[str, Callable[..., Filter]] = {
    "chatty_prefaces": ChattyPrefaces,
    "empty_turns": EmptyTurns,
    "exact_duplicates": ExactDuplicates,
    "gopher_quality": GopherQuality,
    "gopher_repetition": GopherRepetition,
    "language": Language,
    "length": Length,
    "lima": Lima,
    "near_duplicates": NearDuplicates,
    "other_assistants": OtherAssistants,
    "pii": PII,
    "refusals": Refusals,
    "repeated_turns": RepeatedTurns,
    "rouge_novelty": RougeNovelty,
    "self_instruct": SelfInstruct,
}


def get_filters(specs: Sequence[Any]) -> list[Filter]:
    """The filters that a recipe names, fresh: some remember the rows they have seen."""
    return [build("filter", FILTERS, spec) for spec in specs]
