"""Ctrl-C and SIGTERM: the step in progress is finished and saved in full, then the run ends.

Outside of training there is nothing to save, and the run ends where it stands.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback

from posttrain.pipeline.counting import say

# a launcher passes on the Ctrl-C that its processes got already; that is no second one
ECHO_SECONDS = 5.0


class Interrupted(KeyboardInterrupt):
    """The run was told to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


class Signals:
    """What was received, and whether a step is in progress that should be saved first."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.first = 0.0
        self.training = False

    def handle(self, signum: int, frame: Any) -> None:
        """The first one waits for the step that is being trained; a later one does not."""
        now = time.monotonic()
        if self.received is None:
            self.received, self.first = signum, now
        elif now - self.first < ECHO_SECONDS:
            return
        if not self.training or now - self.first >= ECHO_SECONDS:
            raise Interrupted(signum)
        if PartialState().is_main_process:
            say("interrupted: this step is finished and saved first; again to stop at once")


@contextmanager
def listening() -> Iterator[Signals]:
    """SIGINT and SIGTERM are ours for the time of a run; only a main thread can listen."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, signals.handle) for name in names}
    try:
        yield signals
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class SaveWhenStopped(TrainerCallback):
    """Saves and stops at the end of the step in which any process was told to stop."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.signals.training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        told = self.signals.received
        if PartialState().num_processes > 1:
            most = reduce(torch.tensor(float(told or 0), device=args.device), reduction="sum")
            if most and told is None:  # another process was, and all must save together
                self.signals.received = told = signal.SIGTERM
                # the launcher tells the rest when that process has ended: no second signal either
                self.signals.first = time.monotonic()
        if told is not None:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.signals.training = False
        if self.signals.received is not None:
            raise Interrupted(self.signals.received)
