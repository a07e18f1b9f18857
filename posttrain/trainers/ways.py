"""Ways to share training among devices that would be wrong here, or ignored, are refused."""

from __future__ import annotations

import os
from typing import Any

from accelerate.utils import DistributedType

from posttrain.errors import RunError

SPLIT = {"sp_size": "sequence parallelism", "cp_size": "context parallelism"}


def check_ways(args: Any, accelerator: Any) -> None:
    """Look at what was asked of accelerate, once it has made up its mind.

    Raises:
        RunError: sequences would be cut where packs are not, or FSDP would quietly be plain DDP.
    """
    parallel = getattr(accelerator, "parallelism_config", None)
    for name, what in SPLIT.items():
        if (size := getattr(parallel, name, 1)) > 1:
            raise RunError(
                f"{name}: {size} ({what}) cuts every tensor of a batch along its length, and the "
                "packs of these trainers with it; leave it out: max_tokens_per_device, "
                "gradient_checkpointing and ZeRO-3 with offload are what makes long rows fit"
            )
    wanted = args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if wanted and accelerator.distributed_type != DistributedType.FSDP:
        found = accelerator.distributed_type.value
        raise RunError(
            f"FSDP was asked for and accelerate made {found} of it: it shards on GPUs and several "
            "processes only; use --hardware zero3, which shards on CPUs too, or leave FSDP out"
        )
