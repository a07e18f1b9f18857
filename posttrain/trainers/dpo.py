"""Preference optimisation with the losses of DPO's family; a pair's prompt is forwarded once.

The plain loop that it must equal stands in `examples/dpo.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from posttrain.errors import ModelError
from posttrain.head import score_with_collision
from posttrain.head.chunks import Answer, Later
from posttrain.losses import preference_loss
from posttrain.losses.base import (
    PairLogps,
    PairLoss,
    PreferenceLoss,
    segment_sum,
    within_shared,
)
from posttrain.packing import forward_inputs
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments
from posttrain.trainers.reference import ReferenceLogps, check_reference_words, tables_of


@dataclass
class DPOConfig(PostTrainingArguments):
    """Settings of `DPOTrainer`.

    Attributes:
        loss: the preference loss and its options, as in a recipe (docs/dpo.md).
        beta: short for the loss's own `beta`.
        ref_model_init_kwargs: `revision` and `trust_remote_code` of a `ref_model` given by its id.
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "Peak learning rate."})
    loss: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "dpo"}, metadata={"help": "Preference loss."}
    )
    beta: float | None = field(default=None, metadata={"help": "Short for the loss's beta."})
    ref_model_init_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "How a ref_model given by its id is loaded."}
    )

    def preference_loss(self) -> PreferenceLoss:
        """The loss that the settings name."""
        spec = {"name": self.loss} if isinstance(self.loss, str) else dict(self.loss)
        return preference_loss(spec if self.beta is None else {**spec, "beta": self.beta})


class DPOTrainer(PostTrainer):
    """Trains on preference pairs.

    Args:
        ref_model: the reference, a loaded model, a folder or a hub id. It fills the tables of
            reference log-probs when training begins and is dropped. Default: the model that
            training starts from, without its adapters.
        others: see `PostTrainer`.

    Raises:
        ModelError: a `ref_model` for a loss without a reference, or with other tokens.
    """

    args: DPOConfig
    row_kind = "preference"
    config_class = DPOConfig
    metric_names = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    )
    source_metric_names = ("loss", "margin", "accuracy")

    def __init__(
        self, model: Any, ref_model: Any = None, args: DPOConfig | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, args, **kwargs)
        self.loss = self.args.preference_loss()
        if ref_model is not None and not self.loss.needs_reference:
            raise ModelError(
                f"ref_model: the loss {self.args.loss!r} compares with no reference; leave it out"
            )
        self.ref_model = None if ref_model is model and isinstance(model, nn.Module) else ref_model
        if isinstance(self.ref_model, str):
            check_reference_words(
                self.processing_class, self.ref_model, **self.args.ref_model_init_kwargs or {}
            )
        self.own_reference = self.ref_model is None
        self.reference: torch.Tensor | None = None
        # the rows are kept beside their table: an id is only theirs while they live
        self.eval_references: dict[int, tuple[Any, torch.Tensor]] = {}
        if self.loss.needs_reference:
            self.add_callback(ReferenceLogps(self))

    # --- the reference ----------------------------------------------------------------------------

    def has_reference(self) -> bool:
        """Whether the reference can still be asked: it is, or is at hand beside, the model."""
        if not self.own_reference:
            return self.ref_model is not None
        adapters = hasattr(self.accelerator.unwrap_model(self.model), "disable_adapter")
        return self.state.global_step == 0 or adapters

    def keep_reference(self, rows: Any, table: torch.Tensor) -> None:
        """Remember the table of some evaluation rows."""
        self.eval_references[id(rows)] = (rows, table.to(self.args.device))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As the base's, with the reference's log-probs of the evaluation rows.

        Raises:
            ValueError: evaluated for the first time when the reference is gone.
        """
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if isinstance(rows, Mapping) or not self.loss.needs_reference:
            return super().evaluate(rows, ignore_keys, metric_key_prefix)
        if id(rows) not in self.eval_references:
            if not self.has_reference():
                raise ValueError(
                    "these rows were not among `eval_dataset`: call evaluate() on them once before "
                    "train(), for the reference is the model before training, or a `ref_model` "
                    "that is dropped when training begins"
                )
            self.keep_reference(rows, tables_of(self, {"rows": self.prepare(rows)})["rows"])
        kept, self.reference = self.reference, self.eval_references[id(rows)][1]
        try:
            return super().evaluate(rows, ignore_keys, metric_key_prefix)
        finally:
            self.reference = kept

    # --- the loss ---------------------------------------------------------------------------------

    def num_items(self, batch: Batch) -> torch.Tensor:
        return torch.tensor(float(len(batch["index"])))

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if not len(batch["index"]):
            return self.logps(model, batch).sum()
        pairs_of = PairsOf(self, batch)
        weights = Later(pairs_of.ends, pairs_of.weigh)
        if self.loss.needs_collision:
            inputs, keep = forward_inputs(batch), batch["keep"]
            answer = score_with_collision(model, inputs, keep, batch["targets"], weights)
        else:
            answer = Answer(self.logps(model, batch, weights=weights))
        policy, out = pairs_of.losses(answer)
        self.note(policy, out, batch["source"].view(-1, 2)[:, 0])
        return out.losses.sum()

    def note(self, policy: PairLogps, out: PairLoss, source: torch.Tensor) -> None:
        """Meter one micro-batch."""
        ones, margins = torch.ones_like(out.losses), out.chosen_rewards - out.rejected_rewards
        right = (margins > 0).float()
        rewards = (out.chosen_rewards, out.rejected_rewards, margins, right)
        values = (*rewards, policy.chosen.detach(), policy.rejected.detach())
        for name, value in zip(self.metric_names, values, strict=True):
            self.meter(name, value.sum(), len(value))
        for name, value in zip(self.source_metric_names, (out.losses, margins, right), strict=True):
            self.source_meter(name, value, ones, source)


class PairsOf:
    """The losses of a micro-batch's pairs; a pair's depends on nothing but its own log-probs.

    Attributes:
        ends: where each pair's trained tokens end among all of them.
    """

    def __init__(self, trainer: DPOTrainer, batch: Batch) -> None:
        self.loss, self.segment = trainer.loss, batch["segment"]
        self.tokens = batch["tokens"].view(-1, 2)
        self.ends: list[int] = self.tokens.sum(1).cumsum(0).tolist()
        self.reference = None
        if self.loss.needs_reference:
            assert trainer.reference is not None, "the table is filled when training begins"
            self.reference = trainer.reference[batch["index"]]

    def losses(self, answer: Answer, some: slice = slice(None)) -> tuple[PairLogps, PairLoss]:
        """Log-probs and losses of some of the pairs, from the answer for their tokens."""
        tokens = self.tokens[some]
        first = some.start or 0
        stop = self.ends[first + len(tokens) - 1]
        segment = self.segment[self.ends[first - 1] if first else 0 : stop] - 2 * first

        def summed(values: torch.Tensor) -> torch.Tensor:
            return segment_sum(values, segment, 2 * len(tokens)).view(-1, 2)

        sums, collision = summed(answer.logps), None
        if self.loss.needs_shared:
            shared = answer.logps * within_shared(segment, tokens.reshape(-1))
            sums = torch.cat([sums, summed(shared)], 1)
        if self.loss.needs_collision:
            assert answer.collision is not None
            collision = summed(answer.collision)
        policy = pairs(sums, tokens, collision)
        reference = self.reference
        return policy, self.loss(
            policy, None if reference is None else pairs(reference[some], tokens)
        )

    def weigh(self, answer: Answer, block: slice) -> torch.Tensor:
        """The gradient of the summed losses at the log-probs of a block of whole pairs."""
        some = slice(bisect_right(self.ends, block.start), bisect_left(self.ends, block.stop) + 1)
        with torch.enable_grad():
            logps = answer.logps.detach().requires_grad_()
            _, out = self.losses(answer._replace(logps=logps), some)
            (gradient,) = torch.autograd.grad(out.losses.sum(), logps)
        return gradient


def pairs(
    sums: torch.Tensor, tokens: torch.Tensor, collision: torch.Tensor | None = None
) -> PairLogps:
    """Columns as the loss reads them.

    Args:
        sums: `[B, 2]` of chosen and rejected, or `[B, 4]` with the parts of the shared length.
        tokens: `[B, 2]`.
        collision: `[B, 2]`.
    """
    shared = sums[:, 2:].unbind(1) if sums.shape[1] > 2 else (None, None)
    extra = collision.unbind(1) if collision is not None else (None, None)
    return PairLogps(*sums[:, :2].unbind(1), *tokens.unbind(1), *shared, *extra)
