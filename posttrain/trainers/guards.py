"""Steps whose loss or gradient is not finite are skipped, and counted, and end a run that has many.

All processes must agree on it. The norm of the whole gradient is one number that all of them
know, so it alone decides; a loss that is not finite makes the gradient not finite, by
`spoil_gradient`, whatever its derivative is. Nothing is communicated for it.

DeepSpeed takes its step inside `backward`, before anyone sees the norm. ZeRO 1 to 3 then skip such
a step themselves and report an infinite norm, which is counted here. ZeRO 0 does not, and the run
stops at once: its weights are lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import nn
from transformers import Trainer

from posttrain.errors import RunError

logger = logging.getLogger(__name__)
SHOWN_ROWS = 8

Losses = Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def spoil_gradient(loss: torch.Tensor) -> torch.Tensor:
    """The same loss; its gradient is NaN if it is not finite itself. Asks the device nothing."""
    value = loss.detach()
    return loss * torch.where(value.isfinite(), torch.ones_like(value), value * math.nan)


class Guarded(Trainer):
    """A `Trainer` that leaves out steps that would spoil the weights."""

    args: Any
    sources: list[str]
    source_meters: Any
    optimizer: Any
    rows_of_step: Sequence[dict[str, torch.Tensor]] = ()
    skipped_steps = 0
    skipped_in_a_row = 0

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Trainer's hook: remember which rows a step was about, until it is taken."""
        kept = {name: inputs[name] for name in ("index", "source", "keep") if name in inputs}
        self.rows_of_step = [*self.rows_of_step, kept]
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Trainer's seam between the gradient's norm and the optimizer's step."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        finite = norm is None or math.isfinite(norm)  # the one number a step reads from the device
        engine = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if not engine:  # then the learning rate stays where it is, too
            self.optimizer._is_overflow = not finite
        if finite:
            self.skipped_in_a_row = 0
        else:
            self.skip(model, norm, engine)
        self.rows_of_step = ()
        return norm

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Trainer's seam after a step; it empties its sum of losses by `x -= x`: a NaN stays."""
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)
        if self._globalstep_last_logged == self.state.global_step:
            tr_loss.zero_()

    def skip(self, model: nn.Module, norm: Any, engine: bool) -> None:
        """Leave this step out.

        Raises:
            RunError: it was one too many, or DeepSpeed has taken it already.
        """
        step, args = self.state.global_step + 1, self.args
        self.skipped_steps += 1
        if self.loss_scale(engine) > 1:  # fp16 looks for its scale by skipping steps
            return
        self.skipped_in_a_row += 1
        what = f"step {step}: {self.blame(float(norm))}"
        if engine and not self.accelerator.optimizer_step_was_skipped:
            raise RunError(
                f"{what}, and DeepSpeed without ZeRO took the step: go on from the last checkpoint "
                "with zero_optimization.stage 1 or more, under which such steps are skipped"
            )
        model.zero_grad()  # optimizers leave alone what has no gradient
        if self.skipped_in_a_row >= args.max_skipped_steps:
            raise RunError(
                f"{what}. {self.skipped_in_a_row} steps in a row were skipped, the weights are "
                f"those of step {step - self.skipped_in_a_row}: look at these rows, lower "
                f"learning_rate, or raise max_skipped_steps ({args.max_skipped_steps})"
            )
        if self.accelerator.is_main_process:
            logger.warning("%s; the step was skipped", what)

    def loss_scale(self, engine: bool) -> float:
        """What fp16 multiplies the loss by; 1 without fp16."""
        if engine:
            return float(getattr(self.optimizer.optimizer, "loss_scale", 1.0))
        scaler = self.accelerator.scaler
        return float(scaler.get_scale()) if scaler is not None else 1.0

    def blame(self, norm: float) -> str:
        """What is not finite, and in which rows of which sources, of all processes."""
        found: dict[str, list[int]] = {}
        for part in gather_object([self.suspects(self.source_meters["loss"])]):
            for source, rows in part.items():
                found[source] = sorted({*found.get(source, []), *rows})
        if found:
            return f"the loss is not finite, in {listed(found)}"
        used = gather_object([self.sources[int(i)] for p in self.rows_of_step for i in p["source"]])
        names = ", ".join(sorted(set(used)))
        return f"the gradient is not finite (its norm is {norm}), the loss is; sources: {names}"

    def suspects(self, losses: Losses) -> dict[str, list[int]]:
        """Source -> rows of the data set whose loss is not finite, in this process's step."""
        parts = [p for p in self.rows_of_step if len(p.get("index", p["keep"]))]
        found: dict[str, list[int]] = {}
        for part, (totals, _, source) in zip(parts, losses[-len(parts) :], strict=False):
            for i in torch.nonzero(~totals.isfinite()).flatten().tolist():
                rows = found.setdefault(self.sources[int(source[i])], [])
                rows += [int(part["index"][i])] if "index" in part else []
        return found


def listed(found: Mapping[str, Sequence[int]]) -> str:
    """Sources and their rows, in words."""
    parts = []
    for source, rows in sorted(found.items()):
        shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
        more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
        parts.append(f"{source} (rows {shown}{more})" if rows else source)
    return ", ".join(parts)
