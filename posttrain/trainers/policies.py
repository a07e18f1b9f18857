"""The reference of a policy in RL: the model that a stage starts from, kept as it was."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from posttrain.models import load_model, resize_to
from posttrain.trainers.reference import adapters_off

if TYPE_CHECKING:
    from posttrain.trainers.base import Batch, PostTrainer


class FrozenReference:
    """Log-probs of the starting model: adapters switched off, or a frozen copy without them."""

    def __init__(self, trainer: PostTrainer) -> None:
        self.trainer = trainer
        self.copy: Any = None
        if hasattr(trainer.model, "disable_adapter"):
            return
        if trainer.is_deepspeed_enabled:
            # partitioned weights cannot be copied: load them once more
            from trl.models.utils import prepare_deepspeed

            model = load_model(trainer.model.config._name_or_path, dtype=trainer.model.dtype)
            resize_to(model, trainer.processing_class)
            self.copy = prepare_deepspeed(model, trainer.accelerator)
        else:
            self.copy = copy.deepcopy(trainer.model).eval().requires_grad_(False)

    @torch.no_grad()
    def logps(self, batch: Batch, temperature: float) -> torch.Tensor:
        """`[K]` log-probs of the trained tokens under the reference."""
        if self.copy is not None:
            return self.trainer.logps(self.copy, batch, temperature)
        with adapters_off(self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)):
            return self.trainer.logps(self.trainer.model_wrapped, batch, temperature)
