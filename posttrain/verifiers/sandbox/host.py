"""Starts a jail for one completion, waits for it, and says what came of it."""

from __future__ import annotations

import functools
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
# The jail runs files of this package without the package: nothing of it is imported on the way.
_START = """
import sys, types
for name, path in {packages!r}:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from posttrain.verifiers.sandbox.jail import main
main()
""".format(
    packages=[
        ("posttrain", str(_HERE.parents[1])),
        ("posttrain.verifiers", str(_HERE.parent)),
        ("posttrain.verifiers.sandbox", str(_HERE)),
    ]
)
_GRACE = 5.0
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Limits:
    """What one completion may use.

    Attributes:
        cpu_seconds: of each process.
        wall_seconds: of the whole jail, after which everything in it is killed.
        memory_mb: address space of each process.
        file_mb: size of one file; a folder in memory holds four times as much.
        processes: processes and threads.
        files: open files.
        output_kb: what is read of a program's output.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 10.0
    memory_mb: int = 1024
    file_mb: int = 16
    processes: int = 32
    files: int = 64
    output_kb: int = 1024


@dataclass(frozen=True)
class Outcome:
    """What came of one jail.

    Attributes:
        passed: tests that passed, of those `done`.
        first: number (from 1) of the first test that failed, and why.
        fault: `timeout` or `crash` where there was no result.
        active: the protection that was in force (see `protection`).
    """

    passed: int = 0
    done: int = 0
    first: tuple[int, str] | None = None
    fault: str = ""
    active: Mapping[str, str] = field(default_factory=dict)


def judge_code(code: str, tests: Mapping[str, Any], limits: Limits) -> Outcome:
    """Load code in a jail and run tests against it.

    Args:
        tests: `tests` (statements, or `input` and `output`), `setup`, `entry_point`, `runs`.

    Raises:
        OSError: no process can be started.
    """
    with tempfile.TemporaryDirectory(prefix="posttrain-jail-") as folder:
        request = {
            "code": code, "setup": tests["setup"], "runs": tests["runs"],
            "limits": asdict(limits), "folder": folder, "number": next(_NUMBERS) + os.getpid(),
        }  # fmt: skip
        answer = _start_and_wait(request, tests, limits.wall_seconds + _GRACE)
    if answer is None:
        return Outcome(fault="crash")
    if answer.get("timeout"):
        return Outcome(fault="timeout", active=answer["active"])
    first = answer["first"]
    return Outcome(
        answer["passed"], answer["done"], tuple(first) if first else None, "", answer["active"]
    )


def _start_and_wait(
    request: Mapping[str, Any], tests: Mapping[str, Any], seconds: float
) -> dict[str, Any] | None:
    code_fd, tests_fd = _in_memory(request), _in_memory(tests)
    result, result_fd = os.pipe()
    descriptors = (code_fd, tests_fd, result_fd)
    interpreter = os.path.realpath(sys.executable)
    library = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    try:
        process = subprocess.Popen(
            [interpreter, "-s", "-S", "-P", "-c", _START, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **library},
            cwd="/",
            start_new_session=True,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        text = _read(result, time.monotonic() + seconds)
    finally:
        os.close(result)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    lines = text.decode("utf-8", "replace").splitlines()
    return json.loads(lines[0]) if lines else None


def _in_memory(value: Any) -> int:
    """A descriptor from which the JSON of a value can be read."""
    descriptor = os.memfd_create("request")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(value).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(descriptor: int, deadline: float) -> bytes:
    """What is written until every writer is gone, or until the deadline."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


@functools.cache
def protection() -> dict[str, str]:
    """What keeps foreign code in on this machine, by trying it out.

    Keys:
        processes: `namespace` (ends with the jail, sees no other) or `sweep` (killed one by one).
        files: `namespace` (only the library, read-only, and a folder in memory), or `user`.
        network: `namespace`, `calls refused` or `open`.
        user: `another` (root drops to a user without rights) or `the same`.
        calls: `refused` (seccomp) or `all`.
    """
    tests = {"tests": ["assert True"], "setup": "", "entry_point": None, "runs": False}
    found = judge_code("", tests, Limits()).active
    return {"processes": "sweep", "files": "user", "network": "open", "user": "the same"} | dict(
        found
    )
