"""A process that answers one question a line, and is killed when it computes too long.

A timer that counts the process's own CPU time ends it, also on a loaded machine, off the main
thread and inside one long operation, where no signal handler and no thread could. A fresh process
takes the next question.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from posttrain.errors import VerifierError


class Bounded:
    """The process of one script, started at the first question and again after each that overran.

    The script prints a line when it is ready, then one line of JSON for each that it reads.

    Attributes:
        script: the file to run; it imports nothing of this package.
        needs: a package that it imports, for the message when it does not start.
    """

    def __init__(self, script: Path, needs: str = "json") -> None:
        self.script, self.needs = script, needs
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False
        atexit.register(self._close, os.getpid())

    def ask(self, question: Any) -> Any:
        """The answer, or `None` when it takes too long to tell.

        Raises:
            VerifierError: the process does not start.
        """
        with self._lock:
            process = self._process or self._start()
            if not self._is_ready and not self._read(process):
                self._stop()
                raise VerifierError(
                    f"the process of {self.script.name} did not start; "
                    f"does `python -c 'import {self.needs}'` work?"
                )
            self._is_ready = True
            if reply := self._put(process, json.dumps(question)):
                return json.loads(reply)
            self._stop()
            self._start()  # it gets ready while the caller goes on
            return None

    @classmethod
    def _put(cls, process: subprocess.Popen[str], question: str) -> str:
        try:
            print(question, file=process.stdin, flush=True)
        except BrokenPipeError:
            return ""
        return cls._read(process)

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> str:
        return process.stdout.readline() if process.stdout else ""

    def _start(self) -> subprocess.Popen[str]:
        # -P keeps the script's folder off its import path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(self.script)],
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
        if os.getpid() == owner:  # a fork leaves its parent's process alone
            self._stop()
