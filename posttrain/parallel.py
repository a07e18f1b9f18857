"""A function over many chunks, on all cores, answered in order.

The workers are fresh interpreters that speak pickle over their own pipes. They are not forked, so
threads, CUDA and thread pools of this process cannot hang in them, and they do not import the
caller's main module, so a script without a `__main__` guard is not run again. The answers come in
the order of the chunks: what is built does not depend on how many workers there were.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, BinaryIO

from posttrain.errors import DataError, PosttrainError, RunError

ALONE = 2  # chunks done in this process before workers are worth their start
QUEUED = 2  # chunks given to each worker: one that it does, and the next
AHEAD = 4  # chunks per worker that may wait, done or not, so that memory stays bounded;
AT_LEAST = 16  # but as many as this process does by itself while the first worker starts
SERVE = "import sys; sys.path[:] = {path!r}; from posttrain.parallel import serve; serve()"


def num_workers() -> int:
    """Cores this process may use, or `POSTTRAIN_NUM_PROC`.

    Raises:
        RunError: the variable is no positive number.
    """
    given = os.environ.get("POSTTRAIN_NUM_PROC")
    if given is None:
        return len(os.sched_getaffinity(0))
    if not given.isdecimal() or int(given) < 1:
        raise RunError(f"POSTTRAIN_NUM_PROC must be a positive number, got {given!r}")
    return int(given)


def ordered(
    make: Callable[[Any], Callable[[Any], Any]],
    setup: Any,
    chunks: Iterable[Any],
    workers: int | None = None,
) -> Iterator[Any]:
    """`make(setup)` gives a function; its answers to `chunks`, in their order.

    The first chunks are done here, for small data never pays for workers; and later ones too,
    whenever every worker has enough to do.

    Args:
        make: module-level; called once per process.
        setup: what it needs; pickled once per worker.
        chunks: read a little ahead of the answers.
        workers: processes, this one included; default `num_workers()`.

    Raises:
        PosttrainError: as raised by the function, wherever it ran.
        RunError: a worker died.
    """
    children = (workers or num_workers()) - 1
    rest = iter(chunks)
    function = make(setup)
    for chunk in islice(rest, ALONE if children else None):
        yield function(chunk)
    if (first := next(rest, None)) is None:
        return
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    everyone = [take(make, setup) for _ in range(children)]
    for worker in everyone:
        idle.put(worker)

    def call(chunk: Any) -> Any:
        worker = idle.get()
        try:
            return worker(chunk)
        finally:
            idle.put(worker)

    pool, most = ThreadPoolExecutor(children), max(AHEAD * children, AT_LEAST)
    pending: deque[Future[Any]] = deque()
    done = False
    try:
        for chunk in chain([first], rest):
            if sum(not future.done() for future in pending) < QUEUED * children:
                pending.append(pool.submit(call, chunk))
            else:
                pending.append(done_here(function, chunk))
            while pending and (pending[0].done() or len(pending) > most):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        done = True
    finally:
        for future in pending:
            future.cancel()
        for worker in everyone:
            put_back(worker, done)
        pool.shutdown(wait=True)


kept: list[Worker] | None = None  # workers without work, while `keep_workers` lasts


@contextmanager
def keep_workers() -> Iterator[None]:
    """Workers started inside are used again by the next `ordered`, and end with the block.

    A worker takes half a second to start, and a stage asks for them once per source and pass.
    """
    global kept
    if kept is not None:  # an outer block keeps them longer
        yield
        return
    kept = []
    try:
        yield
    finally:
        workers, kept = kept, None
        for worker in workers:
            worker.close()


def put_back(worker: Worker, done: bool) -> None:
    """Keep a worker that has nothing left to do, or end it."""
    if done and kept is not None:
        kept.append(worker)
    else:
        worker.close()


def take(make: Callable[[Any], Callable[[Any], Any]], setup: Any) -> Worker:
    """A worker for a task: one that is kept, if it still is what a new one would be."""
    while kept:
        worker = kept.pop()
        if worker.fits():
            worker.begin(make, setup)
            return worker
        worker.close()
    worker = Worker()
    worker.begin(make, setup)
    return worker


def done_here(function: Callable[[Any], Any], chunk: Any) -> Future[Any]:
    """A chunk that this process does itself while the workers are busy."""
    future: Future[Any] = Future()
    future.set_result(function(chunk))
    return future


class Worker:
    """A child process that answers chunks one at a time."""

    def __init__(self) -> None:
        self.place = surroundings()
        env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
        )
        assert self.process.stdin and self.process.stdout
        self.to, self.back = self.process.stdin, self.process.stdout

    def fits(self) -> bool:
        """Whether it is alive, in the folder and the environment that this process has now."""
        return self.process.poll() is None and self.place == surroundings()

    def begin(self, make: Callable[[Any], Callable[[Any], Any]], setup: Any) -> None:
        """Another task from here on."""
        with contextlib.suppress(OSError):  # a dead worker is told of at its first chunk
            send(self.to, (True, (make, setup)))

    def __call__(self, chunk: Any) -> Any:
        try:
            send(self.to, (False, chunk))
            fine, answer = receive(self.back)
        except (EOFError, OSError) as error:
            code = self.process.wait()
            raise RunError(
                f"a worker process ended unexpectedly (exit status {code}); if the machine ran out"
                " of memory, set POSTTRAIN_NUM_PROC to fewer workers"
            ) from error
        if not fine:
            raise answer
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.to, self.back):
            try:
                pipe.close()
            except OSError:  # what was still to be sent has nowhere to go
                continue


def surroundings() -> tuple[Any, ...]:
    """What a worker takes over when it starts."""
    return os.getpid(), os.getcwd(), tuple(sys.path), dict(os.environ)


def send(pipe: BinaryIO | Any, value: Any) -> None:
    """One message: its length, then its pickle."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(struct.pack("<Q", len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO | Any) -> Any:
    """The next message.

    Raises:
        EOFError: the other end is gone.
    """
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)  # from our own parent or child, over a pipe nobody else can reach


def serve() -> None:
    """What a worker does until its pipe closes."""
    back = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not land among the answers
    function: Callable[[Any], Any]
    while True:
        try:
            begins, value = receive(sys.stdin.buffer)
        except EOFError:
            return
        if begins:
            make, setup = value
            function = make(setup)
            continue
        try:
            answer = (True, function(value))
        except PosttrainError as error:
            plain = type(error) in (DataError, RunError)  # others may need more than their text
            answer = (False, error if plain else DataError(str(error)))
        except Exception:
            answer = (False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
        send(back, answer)
