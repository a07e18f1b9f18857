"""Tiny random checkpoints and a tokenizer, made from nothing; no test reaches the network."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# every run of the tests builds its data anew: a stale cache must not make one pass
os.environ["POSTTRAIN_CACHE"] = tempfile.mkdtemp(prefix="posttrain-tests-")
atexit.register(shutil.rmtree, os.environ["POSTTRAIN_CACHE"], ignore_errors=True)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CORPUS = [
    "<|user|>\nWhat is 12 plus 30?\n<|assistant|>\n12+30=42. The answer is 42.",
    "<|system|>\nBe brief.\n<|user|>\nName an animal.\n<|assistant|>\nA cat, a dog or a horse.",
] * 8
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # wide enough that attention has something to say: at the usual 0.02 all tokens look alike
    "initializer_range": 0.15,
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the tulu template; every text can be written in it."""
    from posttrain.scratch import new_tokenizer

    return new_tokenizer(CORPUS, 320, "tulu")


@pytest.fixture(scope="session")
def checkpoint(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """`checkpoint(model_type, **configuration)`: the folder of a random model, made once."""
    from posttrain.scratch import new_model

    made: dict[str, str] = {}

    def make(model_type: str = "llama", **fields: Any) -> str:
        key = repr((model_type, sorted(fields.items())))
        if key not in made:
            folder: Path = tmp_path_factory.mktemp(model_type)
            new_model({"model_type": model_type, **SHAPE, **fields}, tokenizer, folder, seed=1)
            made[key] = str(folder)
        return made[key]

    return make


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors that are made are of this type, as are sums of losses and tables of log-probs.

    There a gap between two ways is one of formulas, where float32 leaves room for its rounding. It
    takes a model that computes nothing in float32 by itself, such as starcoder2.
    """
    import torch

    from posttrain.trainers import reference

    monkeypatch.setattr(reference, "COLUMNS", {"logps": "float64"})
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def same_step() -> Callable[..., None]:
    """`same_step(found, expected, start, gap)`: weights by name that moved alike from `start`.

    Each differs by less than `gap` of the way that it went, or of a hundredth of the longest way.
    """

    def check(found: Any, expected: Any, start: Any, gap: float) -> None:
        assert found.keys() == expected.keys() <= start.keys()
        moved = {name: float((expected[name] - start[name]).norm()) for name in expected}
        longest = max(moved.values())
        assert longest > 1e-4
        for name, way in moved.items():
            apart = float((found[name] - expected[name]).norm())
            assert apart < gap * max(way, 1e-2 * longest), (name, apart, way)

    return check


# --- processes ------------------------------------------------------------------------------------

BIN = Path(sys.executable).parent
MARK = "POSTTRAIN_TESTS_LAUNCH"  # in the environment of every process of a launch


def environment(**more: str) -> dict[str, str]:
    one = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, **one, "HF_HUB_OFFLINE": "1", "PATH": path, **more}


class Launched:
    """A launch that is running: what it prints goes to a file, and no process of it survives."""

    def __init__(self, command: Sequence[Any], folder: Path, **variables: str) -> None:
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=environment(**variables) | dict([self.mark.split("=")]),
            stdout=self.out,
            stderr=self.err,
            start_new_session=True,
        )

    def wait(self, seconds: float = 400) -> int:
        """The exit status; a launch that hangs is ended with all its processes."""
        try:
            return self.process.wait(timeout=seconds)
        finally:
            self.end()

    def left(self) -> list[int]:
        """Its processes that run: torchrun's workers start sessions of their own, so no group has
        all of them, and one whose parent is dead has no parent to be found by."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended, or is not ours
                continue
        return found

    def end(self) -> None:
        """SIGKILL to every process of the launch that is left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for _ in range(200):  # one that dies may have begun another
            if not (left := self.left()):
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def said(self) -> str:
        """stderr so far."""
        self.err.seek(0)
        return self.err.read()

    def printed(self) -> str:
        """stdout so far."""
        self.out.seek(0)
        return self.out.read()


@pytest.fixture
def begin() -> Iterator[Callable[..., Launched]]:
    """`begin(command, folder)`: a launch that is ended with the test."""
    launched: list[Launched] = []

    def start(command: Sequence[Any], folder: Path) -> Launched:
        launched.append(Launched(command, folder))
        return launched[-1]

    yield start
    for one in launched:
        one.end()


@pytest.fixture(scope="session")
def launch() -> Callable[..., Launched]:
    """`launch(command, folder, **environment)`: run to the end, which must be a good one."""

    def run(
        command: Sequence[Any], folder: Path, seconds: float = 400, **variables: str
    ) -> Launched:
        done = Launched(command, folder, **variables)
        status = done.wait(seconds)
        said = done.said()
        assert status == 0, f"{status}\n{said[-6000:]}"
        assert "terminate called" not in said and "Traceback" not in said, said[-6000:]
        return done

    return run


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port that nobody listens at, for the processes of a launch to meet."""

    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def on_two(
    launch: Callable[..., Launched], free_port: Callable[[], int]
) -> Callable[..., Launched]:
    """`on_two(script, *arguments, **environment)`: a script on two processes, to a good end."""

    def run(script: Path, *arguments: Any, **variables: str) -> Launched:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        command += ["--master_port", str(free_port()), script, *arguments]
        return launch(command, script.parent, 900, **variables)

    return run
