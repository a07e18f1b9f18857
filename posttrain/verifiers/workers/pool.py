"""Verifiers in worker processes, with a limit on the wall clock that kills.

    with Pool(workers=4) as pool:
        handles = [pool.submit("math", text, truth) for text, truth in pairs]
        verdicts = pool.gather(handles)        # generation may go on in between
        pool.counts                            # {"done": 64, "timeout": 1, "crash": 0, ...}

A worker that overruns is killed with every process below it and replaced; the item scores 0, with
the reason and its `fault`. Nothing hangs and nothing is silently 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers import VERIFIERS
from posttrain.verifiers.workers.composition import verifier_of

_WORKER = Path(__file__).with_name("worker.py")
_ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 60.0
Handle = Future[Verdict]


class Worker:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        paths = [str(_ROOT), *filter(None, sys.path)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.rest = b""
        self.is_ready = False

    def ask(self, question: Any, seconds: float) -> dict[str, Any] | None:
        """The answer; `None` if time is up.

        Raises:
            EOFError: the process ended.
        """
        if not self.is_ready:
            if self._line(_START_SECONDS) is None:
                raise EOFError
            self.is_ready = True
        assert self.process.stdin is not None, "the worker has a pipe"
        with contextlib.suppress(BrokenPipeError):  # reading tells
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        line = self._line(seconds)
        return None if line is None else json.loads(line)

    def _line(self, seconds: float) -> bytes | None:
        assert self.process.stdout is not None, "the worker has a pipe"
        descriptor, deadline = self.process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self.rest:
            left = max(deadline - time.monotonic(), 0.0)
            if not select.select([descriptor], [], [], left)[0]:
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise EOFError
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def kill(self) -> None:
        """End the process and all below it: helpers lead sessions of their own."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Pool:
    """Worker processes that are started when work arrives and kept until `close`.

    Args:
        workers: how many; each starts in about a tenth of a second of CPU time.
        seconds: what one item may take.

    Attributes:
        counts: items `done`, of these `timeout`, `crash` (the worker ended), `unparsed`, and
            `not_applicable`; per verifier as `timeout/math`.
    """

    def __init__(self, workers: int = 2, seconds: float = 30.0) -> None:
        if workers < 1 or seconds <= 0:
            raise VerifierError(f"a pool needs a worker and time, got {workers} and {seconds:g} s")
        self.seconds = seconds
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Handle, Any] | None] = queue.SimpleQueue()
        self._here: queue.SimpleQueue[tuple[Handle, Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._size = workers

    def submit(
        self, spec: str | Mapping[str, Any], completion: Any, ground_truth: Any, **row: Any
    ) -> Handle:
        """Queue one item; the handle's `result()` is its verdict.

        Args:
            spec: a verifier's name, or a mapping of parts (see `compose`).
        """
        handle: Handle = Future()
        work = (handle, (spec, completion, ground_truth, row))
        with self._lock:
            if not self._threads:
                self._threads = [self._thread(self._serve) for _ in range(self._size)]
                self._threads.append(self._thread(self._serve_here))
        (self._here if stays_here(spec) else self._queue).put(work)
        return handle

    def gather(self, handles: Sequence[Handle]) -> list[Verdict]:
        """The verdicts, in order.

        Raises:
            VerifierError: a verifier is unknown or cannot read a ground truth.
        """
        return [handle.result() for handle in handles]

    def map(self, items: Sequence[tuple[Any, Any, Any, Mapping[str, Any]]]) -> list[Verdict]:
        """Verdicts of (spec, completion, ground truth, row), in order."""
        return self.gather([self.submit(s, c, t, **row) for s, c, t, row in items])

    def close(self) -> None:
        """End the workers; items that wait are cancelled."""
        threads, self._threads = self._threads, []
        for waiting in (self._queue, self._here):
            with contextlib.suppress(queue.Empty):
                while True:
                    if item := waiting.get_nowait():
                        item[0].cancel()
        for thread in threads:
            (self._here if thread is threads[-1] else self._queue).put(None)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _thread(target: Any) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        """One thread per worker: it waits for the worker, and replaces it."""
        worker = Worker()
        try:
            while (item := self._queue.get()) is not None:
                handle, question = item
                if not handle.set_running_or_notify_cancel():
                    continue
                try:
                    answer = worker.ask(question, self.seconds)
                    if answer is None:
                        raise TimeoutError
                    self._settle(handle, question[0], answer)
                except (TimeoutError, EOFError) as error:
                    worker.kill()
                    worker = Worker()
                    self._settle(handle, question[0], self._fault(error))
                except Exception as error:  # a row that is no JSON
                    handle.set_exception(error)
        finally:
            worker.kill()

    def _fault(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, TimeoutError):
            reason = f"no verdict after {self.seconds:g} seconds; the worker was killed"
            return {"score": 0.0, "reason": reason, "fault": "timeout"}
        return {"score": 0.0, "reason": "the worker ended without a verdict", "fault": "crash"}

    def _serve_here(self) -> None:
        """What cannot leave this process: functions that it holds, and the judge's model."""
        while (item := self._here.get()) is not None:
            handle, (spec, completion, ground_truth, row) = item
            if not handle.set_running_or_notify_cancel():
                continue
            try:
                self._settle(handle, spec, vars(verifier_of(spec)(completion, ground_truth, **row)))
            except Exception as error:
                handle.set_exception(error)

    def _settle(self, handle: Handle, spec: Any, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            kind = answer["kind"]
            text = answer["error"].removeprefix("VerifierError: ")
            if kind not in ("VerifierError", "MissingExtraError"):
                text = f"a verifier's worker failed: {answer['error']}"
            handle.set_exception(VerifierError(text))
            return
        verdict = Verdict(**answer)
        label = "+".join(spec) if isinstance(spec, Mapping) else getattr(spec, "__name__", spec)
        kinds = [verdict.fault] if verdict.fault else []
        kinds += [] if verdict.applies else ["not_applicable"]
        with self._lock:
            self.counts.update(["done", *kinds, *(f"{kind}/{label}" for kind in kinds)])
        handle.set_result(verdict)


def stays_here(spec: Any) -> bool:
    """Whether a specification holds something that cannot be sent to another process."""
    if isinstance(spec, str):
        return bool(getattr(VERIFIERS.get(spec.lower()), "in_process", False))
    if isinstance(spec, Mapping):
        return any(stays_here(part) for part in spec.values() if not isinstance(part, int | float))
    return callable(spec)


def descendants(pid: int) -> list[int]:
    """Processes below one, as far as /proc tells."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found += [child, *descendants(child)]
    return found
