"""Reward model: a scalar on the last token of each answer, trained on pairs (Bradley-Terry)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posttrain.losses.bradley_terry import bradley_terry
from posttrain.models import make_scalar, name_scalar_head
from posttrain.packing import forward_inputs
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments


@dataclass
class RewardConfig(PostTrainingArguments):
    """Settings of `RewardTrainer`; the learning rate is Tülu 3's."""

    learning_rate: float = field(default=3e-6, metadata={"help": "Peak learning rate."})


class RewardTrainer(PostTrainer):
    """Trains a reward model; saved checkpoints load with `AutoModelForSequenceClassification`."""

    args: RewardConfig
    row_kind = "preference"
    head = "scalar"
    config_class = RewardConfig
    metric_names = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    source_metric_names = ("loss", "accuracy")

    def __init__(self, model: Any, args: RewardConfig | None = None, **kwargs: Any) -> None:
        if isinstance(model, nn.Module) and not hasattr(model, "get_base_model"):
            if "ForTokenClassification" not in type(model).__name__:
                raise ValueError(
                    f"model: a loaded {type(model).__name__} has no score per token; "
                    "pass its folder or hub id"
                )
            make_scalar(model)  # type: ignore[arg-type]
        super().__init__(model, args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.accelerator.is_main_process:
            name_scalar_head(Path(str(output_dir or self.args.output_dir)))

    def num_items(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(float(len(batch["index"])))

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """`[B, 2]` scores of chosen and rejected, read at each answer's last token."""
        values = model(**forward_inputs(batch), use_cache=False).logits[0, :, 0].float()
        if not len(batch["index"]):
            return (values.sum() * 0).expand(0, 2)
        return values[batch["last"]].view(-1, 2)

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        scores = self.scores(model, batch)
        chosen, rejected = scores[:, 0], scores[:, 1]
        losses = bradley_terry(chosen, rejected)
        if len(losses):
            margins = (chosen - rejected).detach()
            right, ones = (margins > 0).float(), torch.ones_like(losses)
            source = batch["source"].view(-1, 2)[:, 0]
            values = (chosen.detach(), rejected.detach(), margins, right)
            for name, value in zip(self.metric_names, values, strict=True):
                self.meter(name, value.sum(), len(value))
            self.source_meter("loss", losses, ones, source)
            self.source_meter("accuracy", right, ones, source)
        return losses.sum()
