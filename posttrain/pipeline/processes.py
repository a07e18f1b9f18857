"""The process group of a launch: it ends with the run that made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState


@contextmanager
def processes() -> Iterator[None]:
    """Leave the process group after the run: a process that exits within one is aborted.

    After an error it stays: others may be waiting in it, until the launcher ends them.
    """
    ours = not torch.distributed.is_initialized()
    try:
        yield
        if ours:
            PartialState().wait_for_everyone()
            leave()
    except KeyboardInterrupt:
        if ours:
            leave()
        raise


def leave() -> None:
    """Forget the process group and everything that remembers it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
