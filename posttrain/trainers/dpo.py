"""Direct preference optimisation; a pair's prompt is forwarded once.

The plain loop that it must equal stands in `examples/dpo.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps, segment_sum
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments
from posttrain.trainers.reference import ReferenceLogps, compute


@dataclass
class DPOConfig(PostTrainingArguments):
    """Settings of `DPOTrainer`.

    Attributes:
        loss: the preference loss and its options, as in a recipe.
        beta: short for the loss's own `beta`.
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "Peak learning rate."})
    loss: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "dpo"}, metadata={"help": "Preference loss."}
    )
    beta: float | None = field(default=None, metadata={"help": "Short for the loss's beta."})

    def preference_loss(self) -> Any:
        """The loss that the settings name."""
        spec = {"name": self.loss} if isinstance(self.loss, str) else dict(self.loss)
        return preference_loss(spec if self.beta is None else {**spec, "beta": self.beta})


class DPOTrainer(PostTrainer):
    """Trains on preference pairs. The reference is the model the trainer was given.

    A `ref_model` other than that start is not taken: pass the reference as `model`.
    """

    args: DPOConfig
    row_kind = "preference"
    config_class = DPOConfig
    metric_names = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    source_metric_names = ("loss", "accuracy")

    def __init__(
        self, model: Any, ref_model: None = None, args: DPOConfig | None = None, **kwargs: Any
    ) -> None:
        if ref_model is not None:
            raise ValueError(
                "ref_model: the reference is the model that training starts from; leave it out"
            )
        super().__init__(model, args, **kwargs)
        self.loss = self.args.preference_loss()
        self.reference: torch.Tensor | None = None
        self.eval_references: dict[int, torch.Tensor] = {}
        if self.loss.needs_reference:
            self.add_callback(ReferenceLogps(self))

    def num_items(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(float(len(batch["index"])))

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logps = self.logps(model, batch)
        if not len(batch["index"]):
            return logps.sum()
        tokens = batch["tokens"].view(-1, 2)
        sums = segment_sum(logps, batch["segment"], len(batch["tokens"])).view(-1, 2)
        policy = PairLogps(sums[:, 0], sums[:, 1], tokens[:, 0], tokens[:, 1])
        reference = None
        if self.loss.needs_reference:
            assert self.reference is not None, (
                "reference log-probs are filled in when training begins"
            )
            ref = self.reference[batch["index"]]
            reference = PairLogps(ref[:, 0], ref[:, 1], tokens[:, 0], tokens[:, 1])
        out = self.loss(policy, reference)
        self.note(out, batch["source"].view(-1, 2)[:, 0])
        return out.losses.sum()

    def note(self, out: Any, source: torch.Tensor) -> None:
        ones, margins = torch.ones_like(out.losses), out.chosen_rewards - out.rejected_rewards
        right = (margins > 0).float()
        for name, values in zip(
            self.metric_names,
            (out.chosen_rewards, out.rejected_rewards, margins, right),
            strict=True,
        ):
            self.meter(name, values.sum(), len(values))
        self.source_meter("loss", out.losses, ones, source)
        self.source_meter("accuracy", right, ones, source)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As the base's, with the reference's log-probs of the evaluation rows.

        Raises:
            ValueError: evaluated for the first time on a model that was trained already.
        """
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if isinstance(rows, Mapping) or not self.loss.needs_reference:
            return super().evaluate(rows, ignore_keys, metric_key_prefix)
        kept = self.reference
        if id(rows) not in self.eval_references:
            fresh = self.state.global_step == 0 or hasattr(
                self.accelerator.unwrap_model(self.model), "disable_adapter"
            )
            if not fresh:
                raise ValueError(
                    "these rows were not among `eval_dataset`: call evaluate() on them once before "
                    "train(), for the reference is the model before training"
                )
            self.eval_references[id(rows)] = compute(self, self.prepare(rows)).to(self.args.device)
        self.reference = self.eval_references[id(rows)]
        metrics = super().evaluate(rows, ignore_keys, metric_key_prefix)
        self.reference = kept
        return metrics
