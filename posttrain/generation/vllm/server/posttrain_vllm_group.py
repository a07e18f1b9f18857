"""A process group of a trainer and a server's workers, beside whatever groups either has.

Read in both environments. `torch.distributed.new_group` would need one launch of both, so it is
made directly.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 600.0
ROOT = 0  # the trainer


def store_of(host: str, port: int, *, lead: bool = False) -> Any:
    """Where the members find each other; the trainer leads, at a free port if `port` is 0."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=lead, wait_for_workers=False, timeout=timedelta(seconds=SECONDS)
    )


def group_of(backend: str, store: Any, rank: int, size: int) -> Any:
    """The group; every member has to ask for it.

    Args:
        backend: "nccl" between GPUs, "gloo" between CPUs.
    """
    wait = timedelta(seconds=SECONDS)
    if backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = wait
        return dist.ProcessGroupNCCL(store, rank, size, options)
    return dist.ProcessGroupGloo(store, rank, size, wait)


def broadcast(group: Any, tensor: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with the trainer's, which is as large and of the same type."""
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = ROOT, 0
    group.broadcast([tensor], options).wait()
    return tensor
