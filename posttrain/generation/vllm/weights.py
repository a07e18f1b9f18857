"""Weights on their way to a server: safetensors, written once, in a folder that both can read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError

from posttrain.errors import ModelError, RunError

MEMORY = Path("/dev/shm")
PREFIX = "posttrain-weights-"
LOCK = "lock"
ROOM = 2  # versions that are there at once: the one in use, and the one that follows it


@dataclass(frozen=True)
class Version:
    """Weights in a folder."""

    number: int
    folder: Path
    adapter: bool


class Shelf:
    """A folder with a folder for each version; it is gone when the process is.

    Args:
        size: bytes of one version.
        folder: where it is made; default: in memory (/dev/shm), where there is room for two.
    """

    def __init__(self, size: int, folder: Path | None = None) -> None:
        clear_away(MEMORY)
        if folder is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM * size:
            folder = MEMORY
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        self.lock: IO[str] = (self.folder / LOCK).open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def write(
        self,
        model: Any,
        number: int,
        *,
        dtype: torch.dtype | None = None,
        state: Mapping[str, torch.Tensor] | None = None,
    ) -> Version:
        """The weights of a model, or of its adapter if it has one.

        Args:
            dtype: of the weights in the file; default: as they are.
            state: the weights, where the model itself has only parts of them.

        Raises:
            ModelError: vLLM cannot load an adapter of this kind.
            RunError: no space is left.
        """
        adapter = hasattr(model, "peft_config")
        options: dict[str, Any] = {}
        if adapter:
            check_adapter(model)
            options["save_embedding_layers"] = False
        elif dtype is not None:
            state = model.state_dict() if state is None else state
            state = {
                name: value.to(dtype) if value.is_floating_point() else value
                for name, value in state.items()
            }
        folder = self.folder / str(number)
        shutil.rmtree(folder, ignore_errors=True)  # of a push that was refused
        try:
            model.save_pretrained(folder, state_dict=state, **options)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RunError(f"the weights for the server cannot be written: {error}") from error
        return Version(number, folder, adapter)

    def drop(self, version: Version) -> None:
        """Forget a version that nobody reads any more."""
        shutil.rmtree(version.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


def size_of(model: Any) -> int:
    """Bytes of what is sent: the adapter of a model that has one, else all weights."""
    adapter = hasattr(model, "peft_config")
    chosen = (p for p in model.parameters() if p.requires_grad or not adapter)
    return sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in chosen)


def check_adapter(model: Any) -> None:
    """Refuse adapters that vLLM would load in part only.

    Raises:
        ModelError: not plain LoRA.
    """
    for config in model.peft_config.values():
        for given, what in (
            (getattr(config, "peft_type", "LORA") != "LORA", f"a {config.peft_type} adapter"),
            (getattr(config, "use_dora", False), "DoRA (use_dora)"),
            (getattr(config, "modules_to_save", None), "whole modules (lora_modules_to_save)"),
            (getattr(config, "bias", "none") != "none", "biases"),
        ):
            if given:
                raise ModelError(
                    f"vLLM does not load {what}; train plain LoRA, or all weights, or generate in "
                    "process"
                )


def clear_away(place: Path) -> None:
    """Remove what killed processes have left: folders that nobody holds the lock of."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
