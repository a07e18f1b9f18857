"""Tokens before and after every step that a source's rows went through.

The mixture knows the rows of each step, the tokenizer what they weigh. Rows count whole here, as
they are before `max_length` cuts them, so that the last step shows what the cut cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from posttrain.mixture import Part
from posttrain.store import Store
from posttrain.tokens.sizes import dropped_sizes, row_sizes
from posttrain.tokens.stores import Job


def source_sizes(
    job: Job, used: np.ndarray, made: Store, progress: Callable[[int], None]
) -> tuple[np.ndarray, Counter[str]]:
    """Tokens of every row of a source, `[rows]`, and those that each step of reading dropped.

    Args:
        used: rows of the source that are tokenised already, ascending.
        made: their tokens.
    """
    sizes = np.zeros(job.store.rows, np.int32)
    sizes[used] = made.column("sizes")
    others = np.ones(len(sizes), np.bool_)
    others[used] = False
    rest = np.flatnonzero(others)
    if len(rest):
        sizes[rest] = row_sizes(job, rest, None, progress)
    return sizes, dropped_sizes(job, None, progress)


def with_tokens(
    steps: list[dict[str, Any]], part: Part, sizes: np.ndarray, lost: Counter[str]
) -> list[dict[str, Any]]:
    """The steps of a source with the tokens before and after each.

    Args:
        steps: name, rows before and rows after, in order; the last one draws.
        sizes, lost: see `source_sizes`.
    """
    gone = lost.copy()
    for row, (name, _) in part.dropped.items():
        gone[name] += int(sizes[row])
    gone["hold_out"] = int(sizes[part.held_out].sum(dtype=np.int64))
    tokens = int(sizes.sum(dtype=np.int64)) + sum(lost.values())
    out = []
    for step in steps:
        after = tokens - gone[step["step"]]
        if step["step"] == "draw":
            after = int(sizes[part.taken].sum(dtype=np.int64))
        out.append({**step, "tokens_before": tokens, "tokens_after": after})
        tokens = after
    return out
