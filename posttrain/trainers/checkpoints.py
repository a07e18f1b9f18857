"""Which checkpoints training can go on from.

None is ever half written under its name (`posttrain/trainers/saving.py`). One that is damaged all
the same, by a disk that lost power or a copy cut short, is known by its files and skipped.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from posttrain.errors import RunError

ASIDE = ".saving"  # beside the checkpoints; what it holds is never read
STATE = "trainer_state.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
PICKLES = (".pt", ".pth", ".bin")


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the newest first."""
    names = (p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdecimal())
    return sorted(names, key=lambda p: -int(p.name.split("-")[1]))


def last_checkpoint(folder: Path, warn: Callable[[str], object] | None = None) -> str | None:
    """The newest whole checkpoint in a folder; `warn` is told of each newer one and its fault."""
    for checkpoint in found(folder):
        why = fault(checkpoint)
        if why is None:
            return str(checkpoint)
        if warn is not None:
            warn(f"{checkpoint} is not whole ({why}): skipped, it can be deleted")
    return None


def fault(checkpoint: Path) -> str | None:
    """Why training cannot go on from a checkpoint as if it never stopped; `None`: it can."""
    try:
        int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"])
    except FileNotFoundError:
        return f"{STATE} is missing"
    except (OSError, ValueError, LookupError, TypeError):
        return f"{STATE} is damaged"
    for path in sorted(checkpoint.rglob("*")):
        if not readable(path):
            return f"{path.relative_to(checkpoint)} is damaged"
    return missing(checkpoint)


def readable(path: Path) -> bool:
    """Whether a file ends where its own table of contents says."""
    if path.suffix in PICKLES:
        return zipfile.is_zipfile(path)  # torch writes the list of an archive's files last
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return True
        except (SafetensorError, OSError):
            return False
    return True


def missing(checkpoint: Path) -> str | None:
    """The first part that a checkpoint lacks, in any of the forms that it may be saved in."""
    if (checkpoint / "latest").is_file():  # DeepSpeed: weights, optimizer and scheduler
        sharded = checkpoint / (checkpoint / "latest").read_text(encoding="utf-8").strip()
        parts = ("*model_states.pt", "*optim_states.pt")
        lacking = [part for part in parts if not any(sharded.glob(part))]
        lacking = [f"{sharded.name}/{part}" for part in lacking]
    else:
        fsdp = any(checkpoint.glob("pytorch_model_fsdp*"))
        whole = fsdp or any((checkpoint / name).is_file() for name in WEIGHTS)
        lacking = [] if whole else [WEIGHTS[0]]
        lacking += missing_shards(checkpoint)
        if not any(checkpoint.glob("optimizer*")):
            lacking.append("optimizer.pt")
        if not (checkpoint / "scheduler.pt").is_file():
            lacking.append("scheduler.pt")
    if not any(checkpoint.glob("rng_state*.pth")):
        lacking.append("rng_state.pth")
    return f"{lacking[0]} is missing" if lacking else None


def check_shares(checkpoint: Path, way: str, world: int) -> None:
    """Refuse a checkpoint whose parts this run would read wrongly, or not at all.

    Args:
        way: how this run shares the training among its processes, as `written` calls it.
        world: how many processes it has.

    Raises:
        RunError: saying what wrote the checkpoint, and how to go on.
    """
    wrote, shares = written(checkpoint)
    if wrote == way and shares in (None, world):
        return
    told = f" by {shares} processes" if shares else ""
    again = f"{wrote}{f' and {shares} processes' if shares else ''}"
    instead = "start a new run from its weights"
    if shares:
        instead += f" ({checkpoint / 'zero_to_fp32.py'} writes them to a file)"
    raise RunError(
        f"{checkpoint} was written under {wrote}{told}, and this run is under {way} with {world} "
        f"process(es), which cannot read its optimizer's state; go on under {again}, or {instead}"
    )


def written(checkpoint: Path) -> tuple[str, int | None]:
    """How the writers of a checkpoint shared the training, and among how many processes.

    `None` where the number does not matter: plain checkpoints (one process, DDP) are whole, and
    FSDP's are put together anew when they are read.
    """
    if (checkpoint / "latest").is_file():
        sharded = checkpoint / (checkpoint / "latest").read_text(encoding="utf-8").strip()
        apart = any(sharded.glob("*zero_pp_rank_*model_states.pt"))
        return "ZeRO-3" if apart else "ZeRO-1 or 2", len(list(sharded.glob("*optim_states.pt")))
    return "FSDP" if any(checkpoint.glob("pytorch_model_fsdp*")) else "plain DDP", None


def missing_shards(checkpoint: Path) -> list[str]:
    """Files that the index of sharded weights names and that are not there."""
    index = checkpoint / WEIGHTS[1]
    if not index.is_file():
        return []
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError):
        return [f"what {index.name} lists"]
    return sorted(name for name in shards if not (checkpoint / name).is_file())
