"""Progress per stage: a rich bar on a terminal, plain lines in a log, JSON in metrics.jsonl."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from posttrain.pipeline.counting import SECONDS_BETWEEN_LINES, say
from posttrain.pipeline.folder import write_text

SHOWN = ("loss", "reward", "pass_rate", "rewards/accuracies")


def clean(value: Any) -> Any:
    """Numbers JSON can hold: NaN and infinity become `null`."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsFile(TrainerCallback):
    """Appends every logged step to metrics.jsonl; a resumed stage drops what it will log again."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero or not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not self.repeats(line, state.global_step)]
        write_text(self.path, "".join(line + "\n" for line in kept))

    def repeats(self, line: str, step: int) -> bool:
        """Whether a line is of a step of this stage that comes again, or was cut off."""
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            return True
        if row.get("stage") != self.stage:
            return False
        # a checkpoint is from before the evaluation of its step, which comes again
        again = step and any(name.startswith("eval_") for name in row)
        return bool(row.get("step", 0) >= step if again else row.get("step", 0) > step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        row = {"stage": self.stage, "step": state.global_step}
        row |= {k: clean(v) for k, v in logs.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Progress(TrainerCallback):
    """Shows step, loss (or reward) and time left."""

    def __init__(self, stage: str) -> None:
        self.stage, self.shown = stage, 0.0
        self.bar: Any = None
        self.task: Any = None
        self.latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start, self.first = time.monotonic(), state.global_step
        if not state.is_world_process_zero:
            return
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task(
                self.stage, total=state.max_steps, completed=state.global_step, note=""
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.latest |= {k: v for k, v in (logs or {}).items() if k in SHOWN}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        note = "  ".join(f"{name} {value:.3f}" for name, value in self.latest.items())
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, note=note)
            return
        now = time.monotonic()
        if now - self.shown >= SECONDS_BETWEEN_LINES or state.global_step == state.max_steps:
            self.shown = now
            per_step = (now - self.start) / max(state.global_step - self.first, 1)
            left = per_step * (state.max_steps - state.global_step)
            step = f"{self.stage}: step {state.global_step}/{state.max_steps}"
            say(f"{step}  {note}  {per_step:.2f} s/step, {left:.0f} s left")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
