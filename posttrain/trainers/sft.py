"""Supervised fine-tuning. The plain loop that it must equal stands in `examples/sft.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from posttrain.losses.base import num_items, segment_sum, token_weights
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments

REDUCTIONS = ("token_mean", "sum", "sequence_mean")


@dataclass
class SFTConfig(PostTrainingArguments):
    """Settings of `SFTTrainer`.

    Attributes:
        loss_reduction: over the global batch: `token_mean`, `sum` (over tokens, divided by
            sequences: Tülu 3) or `sequence_mean`.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    loss_reduction: str = field(
        default="token_mean", metadata={"help": "token_mean, sum or sequence_mean."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_reduction not in REDUCTIONS:
            raise ValueError(
                f"loss_reduction: got {self.loss_reduction!r}; allowed are {', '.join(REDUCTIONS)}"
            )


class SFTTrainer(PostTrainer):
    """Trains on the assistant turns of conversations; nothing else reaches the loss or the head."""

    args: SFTConfig
    row_kind = "conversation"
    config_class = SFTConfig
    source_metric_names = ("loss",)

    def num_items(self, batch: Batch) -> torch.Tensor:
        return num_items(batch["tokens"], self.args.loss_reduction)

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        nll = -self.logps(model, batch)
        segment, tokens = batch["segment"], batch["tokens"]
        if not len(segment):
            return nll.sum()
        self.source_meter(
            "loss", segment_sum(nll.detach(), segment, len(tokens)), tokens, batch["source"]
        )
        return (nll * token_weights(tokens, segment, self.args.loss_reduction)).sum()


class PretrainTrainer(SFTTrainer):
    """The same loss on plain text: every token is trained."""

    row_kind = "text"
