"""Checkpoints that are whole or not there, whenever the process is killed.

One is written in a folder aside and renamed when nothing is missing, before any evaluation.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from posttrain.errors import RunError
from posttrain.models import note_quantisation
from posttrain.trainers.checkpoints import (
    ASIDE,
    STATE,
    check_shares,
    fault,
    found,
    last_checkpoint,
)

logger = logging.getLogger(__name__)


def undrawn(device: torch.device) -> Any:
    """Random draws in this context are not missed after it: evaluation leaves training as it was.

    Even the iterator of a data loader draws a seed.
    """
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def once(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Weights without the second copy of those that are tied, which parts put together have."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return {
        name: value
        for name, value in state.items()
        if tied.get(name) not in state or not torch.equal(value, state[tied[name]])
    }


class SavingTrainer(Trainer):
    """A `Trainer` that saves whole checkpoints, before it evaluates, and resumes whole ones."""

    args: Any
    saving = False

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the base's; `True` goes on from the newest whole checkpoint.

        Raises:
            RunError: the checkpoint is not whole, there is none, or it is one of other processes.
        """
        checkpoint = self.whole_checkpoint(resume_from_checkpoint)
        if checkpoint:
            check_shares(Path(checkpoint), self.way(), self.accelerator.num_processes)
        result = super().train(checkpoint, *args, **kwargs)
        if checkpoint and self.args.should_save:
            # a run killed after its last save, before old ones were deleted, saves no more
            folder = Path(self.args.output_dir)
            self.thin_out(folder, Path(last_checkpoint(folder) or checkpoint))
            shutil.rmtree(folder / ASIDE, ignore_errors=True)
        return result

    def way(self) -> str:
        """How the training is shared among the processes, as checkpoints are told apart by it."""
        if self.is_deepspeed_enabled:
            settings = self.accelerator.state.deepspeed_plugin.deepspeed_config
            stage = settings.get("zero_optimization", {}).get("stage")
            return "ZeRO-3" if stage == 3 else "ZeRO-1 or 2"
        return "FSDP" if self.is_fsdp_enabled else "plain DDP"

    def whole_checkpoint(self, wanted: str | bool | None) -> str | None:
        """The checkpoint to go on from: a given one, or for `True` the newest whole one."""
        folder = Path(self.args.output_dir)
        if wanted is True:
            newest = last_checkpoint(
                folder, logger.warning if self.is_world_process_zero() else None
            )
            if newest is None:
                raise RunError(
                    f"{folder} holds no whole checkpoint to go on from; "
                    "leave resume_from_checkpoint out to start anew"
                )
            return newest
        if wanted and (why := fault(Path(wanted))):
            other = last_checkpoint(Path(wanted).parent)
            instead = f"go on from {other}" if other else "no other checkpoint lies beside it"
            raise RunError(f"{wanted} is not whole ({why}); {instead}")
        return wanted or None

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """A run killed after its last step trains no further one: transformers' loop would."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    # --- saving -----------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A model saved for itself is whole under ZeRO-3 too, whatever DeepSpeed's file says."""
        engine = getattr(self, "deepspeed", None)
        if engine is not None and not _internal_call:
            engine._config.zero_config.gather_16bit_weights_on_model_save = True
        super().save_model(output_dir, _internal_call)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if state_dict is not None:
            state_dict = once(self.model, state_dict)
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            note_quantisation(self.model, Path(output_dir or self.args.output_dir))

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, ASIDE) if self.saving else folder

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.saving:  # it has its name when it is whole
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, name = Path(self._get_output_dir(trial)), f"checkpoint-{self.state.global_step}"
        aside, main = folder / ASIDE, self.args.should_save
        if self.accelerator.is_local_main_process:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.saving = False
        self.accelerator.wait_for_everyone()
        self.note_best(folder, aside / name)
        for turn in (main, self.accelerator.is_local_main_process):  # disks may not be shared
            if turn and (aside / name).is_dir():
                move(aside / name, folder / name)
            self.accelerator.wait_for_everyone()
        if main:
            self.thin_out(folder, folder / name)
            shutil.rmtree(aside, ignore_errors=True)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder / name))
        self.accelerator.wait_for_everyone()

    def note_best(self, folder: Path, written: Path) -> None:
        """Note where the best checkpoint will lie, in the state that is in `written` too."""
        if self.state.best_global_step:
            best = folder / f"checkpoint-{self.state.best_global_step}"
            if best.is_dir() or best.name == written.name:
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save and written.is_dir():
                self.state.save_to_json(str(written / f"{STATE}.tmp"))
                os.replace(written / f"{STATE}.tmp", written / STATE)

    def thin_out(self, folder: Path, newest: Path) -> None:
        """Delete the oldest checkpoints above `save_total_limit`, and damaged ones before them.

        The one just written is whole, and stays; so does the best.
        """
        limit = self.args.save_total_limit
        if not limit or limit < 0:
            return
        spared = {newest, Path(self.state.best_model_checkpoint or newest)}
        others = [p for p in reversed(found(folder)) if p not in spared]
        if not self.args.save_only_model:
            others.sort(key=lambda p: fault(p) is None)
        for checkpoint in others[: max(len(others) + len(spared) - limit, 0)]:
            move(checkpoint, folder / ASIDE / "old")
            shutil.rmtree(folder / ASIDE / "old")

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Save, then evaluate: an evaluation that fails must not cost the checkpoint."""
        control = self.control
        if not (control.should_save and control.should_evaluate):
            super()._maybe_log_save_evaluate(*args, **kwargs)
            return
        control.should_evaluate = False
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self.control.should_evaluate, self.control.should_save = True, False
        super()._maybe_log_save_evaluate(*args, **kwargs)
        folder = Path(self.args.output_dir)
        self.note_best(folder, folder / f"checkpoint-{self.state.global_step}")


def move(path: Path, to: Path) -> None:
    """Rename a folder over another one, which is deleted after it has given way."""
    to.parent.mkdir(exist_ok=True)
    old = path.parent / f"{to.name}.old"
    if to.exists():
        os.replace(to, old)
    os.replace(path, to)
    shutil.rmtree(old, ignore_errors=True)
