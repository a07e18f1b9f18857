"""Symbolic equality by math_verify, in a process that the kernel ends when it computes too long.

`9^{9^{9}}` keeps an interpreter busy inside one operation, where no signal handler and no thread
can stop it. A timer that counts the helper's own CPU time can, also on a loaded machine and off
the main thread, and a fresh helper takes the next question.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from posttrain.errors import VerifierError

_HELPER = Path(__file__).with_name("helper.py")


class Symbolic:
    """The helper process, started at the first question and again after each that overran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False
        atexit.register(self._close, os.getpid())

    def equal(self, expected: str, answer: str, cpu_seconds: float) -> bool | None:
        """Whether two LaTeX expressions are equal; `None` when that takes too long to tell.

        Raises:
            VerifierError: the helper does not start.
        """
        with self._lock:
            process = self._process or self._start()
            if not self._is_ready and not self._read(process):
                self._stop()
                raise VerifierError(
                    "the process that compares expressions did not start; "
                    "does `python -c 'import math_verify'` work?"
                )
            self._is_ready = True
            if reply := self._ask(process, json.dumps([expected, answer, cpu_seconds])):
                return json.loads(reply)
            self._stop()
            self._start()  # it gets ready while the caller goes on
            return None

    @classmethod
    def _ask(cls, process: subprocess.Popen[str], question: str) -> str:
        try:
            print(question, file=process.stdin, flush=True)
        except BrokenPipeError:
            return ""
        return cls._read(process)

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> str:
        return process.stdout.readline() if process.stdout else ""

    def _start(self) -> subprocess.Popen[str]:
        # -P keeps the helper's folder off its import path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_HELPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        self._is_ready = False
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def _close(self, owner: int) -> None:
        if os.getpid() == owner:  # a fork leaves its parent's helper alone
            self._stop()


# One helper per process: a fork must not read the replies to its parent's questions.
_HELPERS: dict[int, Symbolic] = {}


def equal(expected: str, answer: str, cpu_seconds: float) -> bool | None:
    """Whether two LaTeX expressions are equal; `None` when that takes too long to tell."""
    helper = _HELPERS.get(os.getpid()) or _HELPERS.setdefault(os.getpid(), Symbolic())
    return helper.equal(expected, answer, cpu_seconds)
