"""Log-probs under the reference, which is the model that a stage starts from.

They are computed once, before the first step, by the trained model itself: it still is the
reference then. No second copy of the weights is held, and a resumed run reads them from disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from posttrain.errors import RunError
from posttrain.losses.base import segment_sum
from posttrain.packing import GlobalBatches, Rows

if TYPE_CHECKING:
    from posttrain.trainers.base import PostTrainer

FILE = "reference_logps.safetensors"


class ReferenceLogps(TrainerCallback):
    """Fills `trainer.reference` (`[rows, 2]`: chosen, rejected) when training begins."""

    def __init__(self, trainer: PostTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        path = Path(args.output_dir) / FILE
        if state.global_step and not path.is_file():
            raise RunError(f"{path} is missing, and the reference cannot be computed from a model that was trained on")
        if state.global_step:
            table = load_file(path)["logps"]
        else:
            table = compute(self.trainer, self.trainer.train_dataset)
            if self.trainer.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file({"logps": table}, f"{path}.tmp")
                os.replace(f"{path}.tmp", path)
        self.trainer.reference = table.to(args.device)


@torch.no_grad()
def compute(trainer: PostTrainer, rows: Any) -> torch.Tensor:
    """`[rows, 2]` summed log-probs of both answers of every pair, under the model as it is."""
    model, state, args = trainer.model_wrapped, trainer.accelerator, trainer.args
    micro = args.per_device_train_batch_size
    batches = GlobalBatches(len(rows), micro * state.num_processes, micro, state.process_index, state.num_processes, 0, False)
    table = torch.zeros(len(rows), 2, device=args.device)
    training = model.training
    model.eval()
    with adapters_off(trainer.accelerator.unwrap_model(model)):
        for batch in DataLoader(Rows(rows), batch_sampler=batches, collate_fn=trainer.data_collator):
            batch = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                logps = trainer.logps(model, batch)
            if len(batch["index"]):
                table[batch["index"]] = segment_sum(logps, batch["segment"], len(batch["tokens"])).view(-1, 2)
    model.train(training)
    return state.reduce(table, reduction="sum").cpu()


def adapters_off(model: Any) -> Any:
    """With adapters the reference is the model without them."""
    from contextlib import nullcontext  # noqa: PLC0415

    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
