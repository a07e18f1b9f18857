"""A server as a child process: it starts, answers, and ends with the process that started it."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from posttrain.errors import ServerError
from posttrain.generation.vllm.client import Client, Lost
from posttrain.generation.vllm.settings import VLLMSettings

logger = logging.getLogger(__name__)
PYTHON = "POSTTRAIN_VLLM_PYTHON"
TOKEN = "POSTTRAIN_VLLM_TOKEN"
SCRIPTS = Path(__file__).resolve().parent / "server"
CHECKOUT = Path(__file__).resolve().parents[3]
SECONDS_BETWEEN_LINES = 15.0
GRACE_SECONDS = 10.0  # for a server to end by itself
LEFT_SECONDS = 2.0  # for what is left of one that was killed: more does not help
# of a launch of several processes: vLLM would take itself for one of them
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FAMILIES = ("GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_", "PYTHON", "VIRTUAL_ENV")


def vllm_python() -> Path:
    """The Python that has vLLM.

    Raises:
        ServerError: there is none.
    """
    named = os.environ.get(PYTHON)
    places = [Path(named)] if named else [p / ".vllm/bin/python" for p in (CHECKOUT, Path())]
    for place in places:
        if place.is_file():
            return place.absolute()  # not resolved: the link says which environment it is
    why = f"{PYTHON} names it" if named else "`make vllm-env` in a checkout of posttrain makes it"
    raise ServerError(
        f"vLLM runs in an environment of its own, and there is none at {places[0]} ({why}); make "
        f"it, or set {PYTHON} to a Python that has vLLM, or generate in process instead"
    )


class Server:
    """A server and all its processes, which form a process group of their own.

    Args:
        model: folder or hub id.
        log: file that gets what vLLM says.
        token: that clients must know; default: a random one.
        port: default: a free one. It stays the same when the server is started again.
        say: called with lines of progress.
    """

    def __init__(
        self,
        model: str,
        settings: VLLMSettings,
        log: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self.model, self.settings, self.log, self.say = model, settings, log, say
        self.host, self.port = host, port
        self.token = token or secrets.token_urlsafe(24)
        self.python = vllm_python()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = os.getpid()
        atexit.register(self.stop)

    @property
    def client(self) -> Client:
        """A client that speaks to it."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return Client(f"http://{host}:{self.port}", self.token)

    def start(self) -> Client:
        """Start it, and wait until it answers.

        Raises:
            ServerError: it ended or did not answer in time; the end of its log is quoted.
        """
        self.stop()
        with self.listen() as listener:
            self.port = listener.getsockname()[1]
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self.process = self.spawn(listener, log)
        self.wait()
        return self.client

    def listen(self) -> socket.socket:
        """The socket that the server is given: its port is known before it is started."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise ServerError(
                f"no server can listen at {self.host}:{self.port} ({error}); choose another port"
            ) from error
        listener.listen(128)
        return listener

    def spawn(self, listener: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """The process; its standard input is a pipe that closes when this process ends."""
        settings = self.settings
        told = {
            "model": self.model,
            "socket": listener.fileno(),
            "engine": settings.engine_options(),
            "device_memory": settings.device_memory,
            "eager": settings.eager,
            "sleep": settings.sleep,
        }
        return subprocess.Popen(
            [str(self.python), "-P", "-m", "posttrain_vllm_server", json.dumps(told)],
            env=self.environment(),
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """This process's variables without those of its launcher and of its Python."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in LAUNCHER and not name.startswith(FAMILIES)
        }
        chosen = {
            "PYTHONPATH": str(SCRIPTS),
            TOKEN: self.token,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        }
        if self.settings.devices is not None:
            chosen["CUDA_VISIBLE_DEVICES"] = self.settings.devices
        if "OMP_NUM_THREADS" in kept:  # otherwise vLLM takes every core, and binds its threads
            chosen["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        return {**kept, **chosen}

    def wait(self) -> None:
        """Wait for the first answer, and say now and then that it is still to come."""
        begin = shown = time.monotonic()
        self.say(f"vLLM: starting {self.model} at port {self.port}; log: {self.log}")
        while True:
            now = time.monotonic()
            if not self.alive:
                raise ServerError(f"the vLLM server ended while it started:{self.last_words()}")
            with contextlib.suppress(Lost):
                health = self.client.health(seconds=5)
                self.say(f"vLLM {health.vllm} on {health.device}: ready after {now - begin:.0f} s")
                return
            if now - begin > self.settings.start_seconds:
                self.stop()
                raise ServerError(
                    f"the vLLM server did not answer in {self.settings.start_seconds:.0f} s "
                    f"(start_seconds):{self.last_words()}"
                )
            if now - shown > SECONDS_BETWEEN_LINES:
                shown = now
                self.say(f"vLLM: starting for {now - begin:.0f} s: {self.last_line()}")
            time.sleep(0.2)

    @property
    def alive(self) -> bool:
        """Whether its first process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it, and whatever is left of its process group."""
        process, self.process = self.process, None
        if process is None or os.getpid() != self.owner:  # a forked child is not the owner
            return
        process.terminate()  # vLLM gives its shared memory back
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        end_group(process.pid)
        process.wait()
        if process.stdin:
            process.stdin.close()

    def last_line(self) -> str:
        """The last line of the log that says something."""
        return ([""] + [line for line in self.tail() if line.strip()])[-1].strip()[:200]

    def last_words(self) -> str:
        """Why it ended, as far as the log says: its own line, else the last ones."""
        lines = [line for line in self.tail() if line.strip()]
        own = [line for line in lines if line.startswith("posttrain server:")]
        found = own[-1:] or [line for line in lines if "Error" in line][-3:] or lines[-3:]
        return "\n".join(["", *found, f"(all of it: {self.log})"])

    def tail(self) -> list[str]:
        """The end of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 20_000))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []


def end_group(group: int) -> None:
    """End what is left of a process group: asked first, killed if that does not help."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + LEFT_SECONDS
        while living(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def living(group: int) -> bool:
    """Whether a process of a group runs; those that nobody has waited for do not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, owner = path.read_text().rpartition(")")[2].split()[:3]
            if int(owner) == group and state not in "ZX":
                return True
    return False
