"""Log-probs under the reference, which is the model that a stage starts from.

They are computed once, before the first step, by the trained model itself: it still is the
reference then. No second copy of the weights is held, and a resumed run reads them from disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from posttrain.errors import RunError
from posttrain.losses.base import segment_sum
from posttrain.trainers.micro_batches import each

if TYPE_CHECKING:
    from posttrain.trainers.dpo import DPOTrainer

FILE = "reference_logps.safetensors"


class ReferenceLogps(TrainerCallback):
    """Fills `trainer.reference` and the evaluation sets' (`[rows, 2]`: chosen, rejected).

    It happens when training begins: later the model is no longer the reference.
    """

    def __init__(self, trainer: DPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        path = Path(args.output_dir) / FILE
        if state.global_step and not path.is_file():
            raise RunError(
                f"{path} is missing, and the reference cannot be computed from a model "
                "that was trained on: put it back, or start again in another folder"
            )
        trainer = self.trainer
        sets = {"train": trainer.train_dataset, **evaluation_sets(trainer.eval_dataset)}
        if state.global_step:
            tables = load_file(path)
            if len(tables["train"]) != len(trainer.train_dataset):
                raise RunError(
                    f"{path} is of {len(tables['train'])} rows and the data set has "
                    f"{len(trainer.train_dataset)}: resume on the same rows, "
                    "or start again in another folder"
                )
        else:
            tables = {name: compute(trainer, rows) for name, rows in sets.items()}
            if trainer.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file(tables, f"{path}.tmp")
                os.replace(f"{path}.tmp", path)
        trainer.reference = tables.pop("train").to(args.device)
        for name, table in tables.items():
            if name in sets:
                trainer.eval_references[id(sets[name])] = table.to(args.device)


def evaluation_sets(value: Any) -> dict[str, Any]:
    """The trainer's evaluation data, one set or several by name."""
    named = value.items() if isinstance(value, Mapping) else [("", value)]
    return {f"eval.{name}": rows for name, rows in named if rows is not None}


@torch.no_grad()
def compute(trainer: DPOTrainer, rows: Any) -> torch.Tensor:
    """`[rows, 2]` summed log-probs of both answers of every pair, under the model as it is."""
    model, state, args = trainer.model_wrapped, trainer.accelerator, trainer.args
    micro = args.per_device_train_batch_size
    loader = trainer.loader(rows, micro * state.num_processes, micro, 0, False)
    table = torch.zeros(len(rows), 2, device=args.device)
    training = model.training
    model.eval()
    with adapters_off(trainer.accelerator.unwrap_model(model)):
        for batch in each(loader):
            batch = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                logps = trainer.logps(model, batch)
            if len(batch["index"]):
                table[batch["index"]] = segment_sum(
                    logps, batch["segment"], len(batch["tokens"])
                ).view(-1, 2)
    model.train(training)
    return state.reduce(table, reduction="sum").cpu()


def adapters_off(model: Any) -> Any:
    """With adapters the reference is the model without them."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
