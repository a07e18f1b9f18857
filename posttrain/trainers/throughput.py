"""What is logged about a step: means per source, tokens per second, MFU, padding, memory.

Micro-batches are counted on the host, before they go to the device; sums of losses stay on the
device. Nothing waits for the device until a step is logged, and then all of it travels in one
collective. docs/metrics.md says what every number means.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from posttrain.attention.kernels import pads
from posttrain.trainers.flops import ModelFlops, model_flops, peak_flops

COUNTED = ("tokens", "computed", "trained", "attended", "cells", "pairs")


class Tally:
    """Counts of the micro-batches since the last log, and the time that their steps took.

    Attributes:
        counts: `[6]` sums, as named in `COUNTED`: real tokens, tokens computed (fillers too),
            tokens that the loss reads, tokens inside attention's rows (a shared prompt once per
            answer), the cells of those padded rows, and pairs of a query and a key.
        sources: `[S]` tokens that the loss reads, per source.
        seconds: time spent in steps; saving, evaluating and logging are left out.
    """

    def __init__(self, num_sources: int) -> None:
        self.num_sources = num_sources
        self.began: float | None = None
        self.clear()

    def clear(self) -> None:
        self.counts = torch.zeros(len(COUNTED), dtype=torch.float64)
        self.sources = torch.zeros(self.num_sources, dtype=torch.float64)
        self.seconds = 0.0

    def add(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Count one packed micro-batch; its tensors are still on the host."""
        computed, trained = batch["input_ids"].numel(), batch["tokens"].cpu()
        # a process without rows runs a filler, which is nobody's
        real = computed if len(batch.get("index", batch["keep"])) else 0
        seen = batch["position_ids"][0].cpu() + 1  # keys that each token attends to
        rows = int(seen[batch["last"].cpu()].sum()) if real else 0
        found = (real, computed, len(batch["keep"]), rows, batch["packed_rows"].numel())
        self.counts += torch.tensor([*found, int(seen.sum()) if real else 0], dtype=torch.float64)
        self.sources.index_add_(0, batch["source"].cpu(), trained.double())

    def start(self) -> None:
        """Let the clock run."""
        self.began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still; it goes on afterwards if it was running."""
        running = self.began is not None
        if self.began is not None:
            self.seconds += time.perf_counter() - self.began
            self.began = None
        try:
            yield
        finally:
            if running:
                self.start()


@dataclass(frozen=True)
class Speed:
    """What the counts of all processes mean."""

    flops: ModelFlops
    peak: float
    world: int

    def metrics(self, counts: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Rates and shares; nothing for a stretch in which no step was run."""
        if not counts["computed"] or not seconds:
            return {}
        work = self.flops(counts["tokens"], counts["trained"], counts["pairs"])
        per_device = work / seconds / self.world
        filled = counts["cells"] - counts["attended"] if counts["padded"] else 0.0
        return {
            "model_tflops": work / 1e12,
            "tokens_per_second": counts["tokens"] / seconds,
            "trained_tokens_per_second": counts["trained"] / seconds,
            "tflops_per_device": per_device / 1e12,
            "mfu": per_device / self.peak,
            "padding": 1 - counts["tokens"] / counts["computed"],
            "attention_padding": filled / max(counts["cells"], 1),
        }


def peak_memory(device: torch.device) -> float:
    """GB: the most that was allocated on the device, or that this process held on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB, on macOS bytes
    return held / (1e9 if sys.platform == "darwin" else 1e6)


class Clock(TrainerCallback):
    """Runs a tally's clock from the first batch that is asked for to the end of training."""

    def __init__(self, trainer: Metered) -> None:
        assert trainer.tally is not None
        self.tally = trainer.tally

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.tally.clear()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.tally.began is None:
            self.tally.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.tally.began = None


def sign(name: str) -> int:
    """By which the smallest becomes the largest."""
    return -1 if name.endswith("_min") else 1


def added(values: tuple[Any, ...]) -> Any:
    """The sum of numbers, or of tensors without asking the device."""
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values).double().sum()
    return float(sum(values))


class Metered(Trainer):
    """A `Trainer` that logs what its subclass meters and what its steps cost."""

    model: Any
    sources: list[str]
    metric_names: tuple[str, ...] = ()
    source_metric_names: tuple[str, ...] = ()
    extreme_names: tuple[str, ...] = ()
    skipped_steps = 0

    def start_metering(self, sources: list[str]) -> None:
        """Set up, before `Trainer.__init__`."""
        self.sources = sources
        self.tally: Tally | None = Tally(len(sources))
        self.meters: dict[str, list[tuple[torch.Tensor, Any]]] = defaultdict(list)
        self.source_meters: dict[str, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = (
            defaultdict(list)
        )
        self.extremes: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.speed: Speed | None = None

    def meter(self, name: str, total: torch.Tensor, count: torch.Tensor | float) -> None:
        """Note a sum and its count; they are reduced once, when a step is logged."""
        self.meters[name].append((total.detach(), count))

    def extreme(self, name: str, value: torch.Tensor) -> None:
        """Note a candidate for the largest (of a name in `_min`: the smallest) since the log."""
        self.extremes[name].append(value.detach().double())

    def source_meter(
        self, name: str, totals: torch.Tensor, counts: torch.Tensor, source: torch.Tensor
    ) -> None:
        """The same per source: `[S]` sums and counts of sequences, and their sources."""
        self.source_meters[name].append((totals.detach().float(), counts.float(), source))

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Trainer's hook: count a micro-batch, then run it."""
        if self.tally is not None:
            self.tally.add(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's seam between two steps."""
        with self.tally.paused() if self.tally is not None else nullcontext():
            super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.drain(), "skipped_steps": self.skipped_steps}
        super().log(logs, start_time)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Meters of their own for an evaluation; training's wait, and its clock stands still."""
        kept = self.meters, self.source_meters, self.tally
        self.meters, self.source_meters, self.tally = defaultdict(list), defaultdict(list), None
        try:
            with kept[2].paused() if kept[2] is not None else nullcontext():
                yield
        finally:
            self.meters, self.source_meters, self.tally = kept

    def drain(self) -> dict[str, float]:
        """Means since the last call, and what the steps came to, over all processes.

        One collective: every process sends its sums, its time and its peak memory.
        """
        tally, (names, sums) = self.tally, self.sums()
        parts = [sums.flatten()]
        if tally is not None:
            own = torch.tensor([tally.seconds, peak_memory(self.args.device)], dtype=torch.float64)
            parts.append(torch.cat([tally.counts, tally.sources]).to(sums))
            parts += [self.farthest().to(sums), own.to(sums)]
        flat = torch.cat(parts)
        if not len(flat):
            return {}
        world = self.accelerator.num_processes
        table = self.accelerator.gather(flat).view(world, -1).cpu().double()
        total = table.sum(0).tolist()
        pairs = zip(names, total[0::2], total[1::2], strict=False)
        metrics = {name: value / count for name, value, count in pairs if count}
        if tally is not None:
            metrics |= self.found(table[:, -2 - len(self.extreme_names) : -2].amax(0).tolist())
            metrics |= self.costs(total[2 * len(names) :], *table[:, -2:].amax(0).tolist())
            tally.clear()
        return metrics

    def farthest(self) -> torch.Tensor:
        """`[E]` the largest of each extreme; the smallest is the largest of the negative ones."""
        none = torch.tensor(-math.inf, dtype=torch.float64, device=self.args.device)
        parts = []
        for name in self.extreme_names:
            values = torch.stack([none, *(sign(name) * v for v in self.extremes[name])])
            parts.append(values.max())
        self.extremes.clear()
        return torch.stack(parts) if parts else none[None][:0]

    def found(self, farthest: list[float]) -> dict[str, float]:
        """What `farthest` says, over all processes; nothing where nothing was noted."""
        pairs = zip(self.extreme_names, farthest, strict=True)
        return {name: sign(name) * value for name, value in pairs if value > -math.inf}

    def sums(self) -> tuple[list[str], torch.Tensor]:
        """Names, and `[N, 2]` sums and counts of this process, on its device."""
        device, num = self.args.device, len(self.sources)
        wide = torch.float32 if device.type == "mps" else torch.float64  # counts are exact
        names, parts = list(self.metric_names), []
        for name in self.metric_names:
            row = torch.zeros(1, 2, device=device, dtype=wide)
            if self.meters[name]:
                totals, counts = zip(*self.meters[name], strict=True)
                row[0, 0], row[0, 1] = added(totals), added(counts)
            parts.append(row)
        for name in self.source_metric_names:
            table = torch.zeros(num, 2, device=device, dtype=wide)
            if self.source_meters[name]:
                columns = [torch.cat(part) for part in zip(*self.source_meters[name], strict=True)]
                table.index_add_(0, columns[2], torch.stack(columns[:2], 1).to(wide))
            names += [f"{name}/{source}" for source in self.sources]
            parts.append(table)
        self.meters.clear()
        self.source_meters.clear()
        return names, torch.cat(parts) if parts else torch.zeros(0, 2, device=device, dtype=wide)

    def costs(self, total: list[float], seconds: float, memory: float) -> dict[str, float]:
        """A tally's metrics from its sums over all processes, the longest time, the most memory."""
        if self.speed is None:
            world = self.accelerator.num_processes
            peak = peak_flops(self.args.device, self.computes_in())
            self.speed = Speed(model_flops(self.model), peak, world)
        counts = dict(zip(COUNTED, total, strict=False)) | {"padded": pads()}
        tokens = zip(self.sources, total[len(COUNTED) :], strict=False)
        metrics = self.speed.metrics(counts, seconds)
        metrics |= {f"tokens/{source}": number for source, number in tokens if number}
        return metrics | {"peak_memory_gb": memory}

    def computes_in(self) -> torch.dtype:
        """The type of the matrix multiplications."""
        if self.args.bf16 or self.args.fp16:
            return torch.bfloat16 if self.args.bf16 else torch.float16
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())
