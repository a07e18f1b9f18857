"""Work shared out over the processes of a launch; what comes of it, in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

T = TypeVar("T")
R = TypeVar("R")


def spread(items: Sequence[T], work: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """`work(items)`, of which every process does its share; all of them get the whole.

    Every process must call it: a share is waited for, and none is so long that waiting fails.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    rank, world = state.process_index, state.num_processes
    mine = items[rank::world]
    done = work(mine) if mine else []
    if world == 1:
        return done
    numbered = list(zip(range(rank, len(items), world), done, strict=True))
    return [result for _, result in sorted(gather_object(numbered), key=itemgetter(0))]
