"""Ways to share training among devices that would be wrong here, or ignored, are refused."""

from __future__ import annotations

import os
from typing import Any

import torch
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


def check_offloaded(optimizer: Any, accelerator: Any) -> None:
    """Look at an optimizer that accelerate is about to put DeepSpeed's own in the place of.

    It knows Adam, AdamW and Adagrad, and makes Adam of whatever else it is given.

    Raises:
        RunError: another method than was asked for would train, and nothing would say so.
    """
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return
    settings = accelerator.state.deepspeed_plugin.deepspeed_config
    offload = settings.get("zero_optimization", {}).get("offload_optimizer") or {}
    replaced = settings.get("zero_force_ds_cpu_optimizer", True)
    known = (torch.optim.Adam, torch.optim.Adagrad)  # an AdamW is an Adam
    if offload.get("device", "none") == "none" or not replaced or isinstance(optimizer, known):
        return
    raise RunError(
        f"optim: {type(optimizer).__name__} with zero_optimization.offload_optimizer would become "
        "DeepSpeed's Adam; set optim: adamw_torch, or `zero_force_ds_cpu_optimizer: false` in the "
        "DeepSpeed settings to keep this one"
    )
