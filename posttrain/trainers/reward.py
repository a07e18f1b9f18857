"""Reward model: a scalar on the last token of each answer, trained on pairs (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.head.precision import wide
from posttrain.losses import reward_loss
from posttrain.losses.bradley_terry import BradleyTerry
from posttrain.models import make_scalar, name_scalar_head
from posttrain.packing import Collator, forward_inputs
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments
from posttrain.trainers.calibration import NUM_BINS, calibration_bins, calibration_error


@dataclass
class RewardConfig(PostTrainingArguments):
    """Settings of `RewardTrainer`; the learning rate is Tülu 3's.

    Attributes:
        loss: the loss and its options, as in a recipe; see `BradleyTerry`.
        center_rewards_coefficient: short for the loss's own.
        disable_dropout: no dropout in the model, so that a score does not depend on chance.
    """

    learning_rate: float = field(default=3e-6, metadata={"help": "Peak learning rate."})
    loss: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "bradley_terry"}, metadata={"help": "Loss of a pair."}
    )
    center_rewards_coefficient: float | None = field(
        default=None, metadata={"help": "Short for the loss's center_rewards_coefficient."}
    )
    disable_dropout: bool = field(default=True, metadata={"help": "No dropout in the model."})

    def reward_loss(self) -> BradleyTerry:
        """The loss that the settings name."""
        spec: dict[str, Any] = {"name": self.loss} if isinstance(self.loss, str) else {**self.loss}
        if self.center_rewards_coefficient is not None:
            spec["center_rewards_coefficient"] = self.center_rewards_coefficient
        return reward_loss(spec)


class RewardTrainer(PostTrainer):
    """Trains a reward model; saved checkpoints load with `AutoModelForSequenceClassification`.

    The head is `score`, linear and without bias. A checkpoint with one is trained on, any other
    gets a fresh one.
    """

    args: RewardConfig
    row_kind = "preference"
    head = "scalar"
    config_class = RewardConfig
    metric_names = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/mean",
        "rewards/margins",
        "rewards/accuracies",
    )
    source_metric_names = ("loss", "accuracy")
    calibration: torch.Tensor | None = None  # `[bins, 3]` while evaluating

    def __init__(self, model: Any, args: RewardConfig | None = None, **kwargs: Any) -> None:
        if isinstance(model, nn.Module) and not hasattr(model, "get_base_model"):
            if "ForTokenClassification" not in type(model).__name__:
                raise ValueError(
                    f"model: a loaded {type(model).__name__} has no score per token; "
                    "pass its folder or hub id"
                )
            make_scalar(model)  # type: ignore[arg-type]
        args = args if args is not None else RewardConfig(output_dir="runs/trainer")
        self.loss = args.reward_loss()
        super().__init__(model, args, **kwargs)
        if args.disable_dropout:
            without_dropout(self.model)
        if isinstance(self.data_collator, Collator):
            self.data_collator = PairCollator(self.data_collator.sources, self.loss.column)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.accelerator.is_main_process:
            name_scalar_head(Path(str(output_dir or self.args.output_dir)))

    # --- margins ----------------------------------------------------------------------------------

    def prepare(self, rows: Any) -> Any:
        """As the base's, and every row has a margin where the loss asks for one.

        Raises:
            DataError: `margin` was asked for and a row has none.
        """
        ready = super().prepare(rows)
        if ready is None or not self.loss.needs_margin:
            return ready
        name = str(self.loss.column) if ready is rows else "margin"  # `read` calls it so
        names = getattr(ready, "column_names", None) or list(ready[0])
        if name not in names or any(row is None for row in ready[name]):
            lacking = f"have no column {name!r}" if name not in names else f"lack `{name}` in part"
            raise DataError(
                f"loss: margin: {self.loss.margin!r} asks for a margin, and the rows {lacking}; add"
                f" it (in a recipe: `columns: {{margin: {self.loss.column}}}`), or leave `margin`"
                " out"
            )
        return ready

    def read(self, raw: Mapping[str, Any]) -> Row:
        """A pair and its margin, which may stand in a column of another name."""
        name = self.loss.margin
        if isinstance(name, str) and name in raw:
            raw = {**raw, "margin": raw[name]}
        return super().read(raw)

    # --- loss -------------------------------------------------------------------------------------

    def num_items(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(float(len(batch["index"])))

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """`[B, 2]` scores of chosen and rejected, read at each answer's last token."""
        values = wide(model(**forward_inputs(batch), use_cache=False).logits[0, :, 0])
        if not len(batch["index"]):
            return (values.sum() * 0).expand(0, 2)
        return values[batch["last"]].view(-1, 2)

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        scores = self.scores(model, batch)
        chosen, rejected = scores[:, 0], scores[:, 1]
        losses = self.loss(chosen, rejected, batch.get("margin"))
        if len(losses):
            self.note(losses, chosen.detach(), rejected.detach(), batch["source"].view(-1, 2)[:, 0])
        return losses.sum()

    # --- metrics ----------------------------------------------------------------------------------

    def note(
        self,
        losses: torch.Tensor,
        chosen: torch.Tensor,
        rejected: torch.Tensor,
        source: torch.Tensor,
    ) -> None:
        margins = chosen - rejected
        right, ones = (margins > 0).float(), torch.ones_like(losses)
        values = (chosen, rejected, (chosen + rejected) / 2, margins, right)
        for name, value in zip(self.metric_names, values, strict=True):
            self.meter(name, value.sum(), len(value))
        self.source_meter("loss", losses, ones, source)
        self.source_meter("accuracy", right, ones, source)
        if self.calibration is not None:
            self.calibration += calibration_bins(margins)

    def drain(self) -> dict[str, float]:
        values = super().drain()
        if self.calibration is not None:
            bins = self.accelerator.reduce(self.calibration, reduction="sum")
            values["calibration_error"] = calibration_error(bins)
        return values

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As the base's, with the calibration error of the pairs."""
        self.calibration = torch.zeros(NUM_BINS, 3, device=self.args.device)
        try:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            self.calibration = None


@dataclass(frozen=True)
class PairCollator(Collator):
    """Pairs of tokens -> a packed batch with the margin of every pair, 0 where it has none.

    Attributes:
        column: where a margin stands, under its own name or as `margin`; `None`: nowhere.
    """

    column: str | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any] | None]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        if self.column is not None:
            found = [row.get(self.column, row.get("margin")) for row in rows if row is not None]
            batch["margin"] = torch.tensor([float(m or 0) for m in found])
        return batch


def without_dropout(model: nn.Module) -> None:
    """Switch off every dropout of a model but that of adapters, which was asked for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_" not in name:
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
