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
        z_loss: c of `c * lse^2` per trained token, lse the logarithm of the softmax's denominator
            (PaLM, arXiv:2204.02311, section 5); default: the model's own `z_loss_coefficient`.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    loss_reduction: str = field(
        default="token_mean", metadata={"help": "token_mean, sum or sequence_mean."}
    )
    z_loss: float | None = field(
        default=None, metadata={"help": "Weight of the z-loss; default: the model's own."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_reduction not in REDUCTIONS:
            raise ValueError(
                f"loss_reduction: got {self.loss_reduction!r}; allowed are {', '.join(REDUCTIONS)}"
            )
        if self.z_loss is not None and not self.z_loss >= 0:
            raise ValueError(f"z_loss: got {self.z_loss}; allowed is 0 (none) or more, as 1e-4")


class SFTTrainer(PostTrainer):
    """Trains on the assistant turns of conversations; nothing else reaches the loss or the head."""

    args: SFTConfig
    row_kind = "conversation"
    config_class = SFTConfig
    source_metric_names = ("loss",)

    def num_items(self, batch: Batch) -> torch.Tensor:
        return num_items(batch["tokens"], self.args.loss_reduction)

    @property
    def z_loss(self) -> float:
        """Weight of the z-loss, 0 for none."""
        own = getattr(self.model.config.get_text_config(), "z_loss_coefficient", None)
        return (own or 0.0) if self.args.z_loss is None else self.args.z_loss

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        segment, tokens = batch["segment"], batch["tokens"]
        weights = token_weights(tokens, segment, self.args.loss_reduction)
        nll = -self.logps(model, batch, weights=weights, z_loss=self.z_loss)
        if not len(segment):
            return nll.sum()
        self.source_meter(
            "loss", segment_sum(nll.detach(), segment, len(tokens)), tokens, batch["source"]
        )
        return (nll * weights).sum()


class PretrainTrainer(SFTTrainer):
    """The same loss on plain text: every token is trained."""

    row_kind = "text"
