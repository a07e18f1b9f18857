"""Seconds and peak memory of a function, each call in a process of its own.

A peer that has warmed a cache, grown the heap or imported a library must not change what is
measured after it, so nothing is shared: the function is imported by name in a fresh interpreter
and its result comes back as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
INTERVAL = 0.05  # seconds between two looks at the memory of the process and its children, at least
SHARE = 0.02  # of the time may go into looking: it takes the interpreter and stalls page faults


def in_child(function: Callable[..., Any], *args: Any) -> tuple[Any, float, float]:
    """Run a module-level function in a fresh process.

    Args:
        function: its result must be JSON; `{"seconds": ...}` in it replaces the time of the whole
            call, for a function that times only a part of what it does.
        args: JSON values.

    Returns:
        The result, the seconds it took without the start of Python, and the peak memory in MB of
        the process and its children together (proportional set size).

    Raises:
        RuntimeError: the process failed; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        job = {
            "path": sys.path,
            "file": inspect.getsourcefile(function),
            "module": function.__module__,
            "name": function.__name__,
            "args": args,
            "out": str(out),
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / "measure.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, errors = process.communicate(json.dumps(job))
        if process.returncode:
            raise RuntimeError(f"{function.__name__} failed:\n{errors[-4000:]}")
        answer = json.loads(out.read_text(encoding="utf-8"))
    result = answer["result"]
    seconds = answer["seconds"]
    if isinstance(result, dict) and "seconds" in result:
        seconds = result["seconds"]
    return result, seconds, answer["peak_mb"]


def family_mb(root: int) -> float:
    """Memory of a process and all below it, in MB; a page that several share counts once (PSS)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    if root not in children:
        return 0.0  # the process's own peak is known without looking
    todo, total = [root], 0
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):  # it ended while we looked
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.split("Pss:", 1)[1].split()[0])
        todo += children.get(pid, [])
    return total / 1024


class Watch(threading.Thread):
    """Looks at the memory of this process and its children until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        pause = INTERVAL
        while not self.stop.wait(pause):
            begin = time.perf_counter()
            self.peak_mb = max(self.peak_mb, family_mb(os.getpid()))
            pause = max(INTERVAL, (time.perf_counter() - begin) / SHARE)


def serve() -> None:
    """The other end of `in_child`."""
    job = json.load(sys.stdin)
    sys.path[:] = job["path"]
    if job["module"] == "__main__":
        job["module"] = Path(job["file"]).stem
        sys.path.insert(0, str(Path(job["file"]).parent))
    function = getattr(importlib.import_module(job["module"]), job["name"])
    watch = Watch()
    watch.start()
    begin = time.perf_counter()
    result = function(*job["args"])
    seconds = time.perf_counter() - begin
    watch.stop.set()
    watch.join()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {"result": result, "seconds": seconds, "peak_mb": max(own, watch.peak_mb)}
    Path(job["out"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    serve()
