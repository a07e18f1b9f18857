"""Micro-batches by count or by tokens, under the loop of `transformers.Trainer`.

By count is what the loop does itself: `gradient_accumulation_steps` batches of the loader make
one step. By tokens their number differs from step to step, which the loop cannot count. So the
loader then yields one list of micro-batches per step, the loop counts one batch per step, and
`training_step` runs the list: gradients are summed, and reduced with the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader

from posttrain.packing import GlobalBatches, Rows, TokenBatches, pack_rows, row_lengths
from posttrain.trainers.saving import SavingTrainer


def each(parts: Iterable[Any]) -> Iterator[Any]:
    """Micro-batches one by one, whether they come singly or as the lists of whole steps."""
    for part in parts:
        yield from part if isinstance(part, list) else [part]


def collate_each(collate: Callable[[Any], Any], step: list[Any]) -> list[Any]:
    """The batches of a list of micro-batches."""
    return [collate(rows) for rows in step]


class MicroBatches(SavingTrainer):
    """A `Trainer` whose batches may be lists of micro-batches, one list per optimizer step."""

    args: Any
    data_collator: Any

    def loader(
        self, rows: Any, batch_size: int, micro_batch: int, seed: int, shuffle: bool
    ) -> DataLoader[Any]:
        """Every process reads its share of each global batch; no row is repeated or lost."""
        args, state = self.args, self.accelerator
        place = (state.process_index, state.num_processes)
        bins = pack_rows(rows, args.max_length) if args.packing else None
        if args.max_tokens_per_device is None:
            by_count = GlobalBatches(
                len(rows), batch_size, micro_batch, *place, seed, shuffle, bins
            )
            return DataLoader(Rows(rows), batch_sampler=by_count, collate_fn=self.data_collator)
        by_tokens = TokenBatches(
            row_lengths(rows), batch_size, args.max_tokens_per_device, *place, seed, shuffle, bins
        )
        collate = partial(collate_each, self.data_collator)
        return DataLoader(Rows(rows), batch_sampler=by_tokens, collate_fn=collate)

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Trainer's hook: forward and backward of a micro-batch, or of all of a step's."""
        if not isinstance(inputs, list):
            return super().training_step(model, inputs, num_items_in_batch)
        state, total = self.accelerator, torch.zeros((), device=self.args.device)
        engine = state.distributed_type == DistributedType.DEEPSPEED  # it has its own boundary
        for i, batch in enumerate(inputs):
            last = i == len(inputs) - 1
            state.gradient_state._set_sync_gradients(last)
            with nullcontext() if last or engine else state.no_sync(model):
                total += super().training_step(model, batch, num_items_in_batch)
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        return int(sum(super(MicroBatches, self).floating_point_ops(b) for b in each([inputs])))

    def _track_num_input_tokens(self, inputs: Any) -> None:
        for batch in each([inputs]):
            super()._track_num_input_tokens(batch)  # type: ignore[no-untyped-call]
