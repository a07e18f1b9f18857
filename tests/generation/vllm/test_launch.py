"""A server that cannot be started says what to do, and one that runs ends with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RecipeError, ServerError
from posttrain.generation.base import Sampling
from posttrain.generation.local import generate_ids
from posttrain.generation.vllm import launch
from posttrain.generation.vllm.engine import VLLMEngine
from posttrain.generation.vllm.launch import PYTHON, Server, living, vllm_python
from posttrain.generation.vllm.settings import VLLMSettings

GREEDY = Sampling(max_new_tokens=8, temperature=0)


def test_without_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PYTHON, str(tmp_path / "python"))
    with pytest.raises(ServerError, match=f"there is none at {tmp_path}/python .{PYTHON} names"):
        vllm_python()
    monkeypatch.delenv(PYTHON)
    monkeypatch.setattr(launch, "CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServerError, match="`make vllm-env`"):
        Server("model", VLLMSettings(), tmp_path / "log")
    python = tmp_path / ".vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert vllm_python() == python


def test_a_server_that_does_not_start_quotes_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)  # an environment without vLLM
    said: list[str] = []
    server = Server("model", VLLMSettings(), tmp_path / "log", say=said.append)
    with pytest.raises(ServerError, match=r"ended while it started:\n.*No module named") as error:
        server.start()
    assert str(tmp_path / "log") in str(error.value) and not server.alive
    assert "starting model at port" in said[0]


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    first = Server("model", VLLMSettings(), tmp_path / "log")
    with first.listen() as listener:
        port = listener.getsockname()[1]
        second = Server("model", VLLMSettings(), tmp_path / "log", port=port)
        with pytest.raises(ServerError, match=f"127.0.0.1:{port} .*choose another port"):
            second.start()


def test_nothing_of_the_launcher_reaches_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    server = Server("model", VLLMSettings(devices="2,3"), tmp_path / "log")
    variables = server.environment()
    assert not variables.keys() & {"RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"}
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert variables["PYTHONPATH"].endswith("posttrain/generation/vllm/server")
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert len(server.token) >= 32 and server.token != Server("m", VLLMSettings(), tmp_path).token


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"device_memory": 0.0}, "device_memory: 0.0 must be a share"),
        ({"device_memory": 40}, "device_memory: 40 must be a share"),
        ({"dtype": "fp8"}, "dtype: 'fp8' must be one of auto, float32"),
        ({"lora_rank": 1024}, "lora_rank: 1024 must be 0 to 512"),
        ({"max_length": 1}, "max_length: 1 must be at least 2"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        VLLMSettings(**options)


def test_settings_become_options_of_the_engine() -> None:
    settings = VLLMSettings(dtype="float32", max_length=64, lora_rank=9, options={"seed": 3})
    assert settings.engine_options() == {
        "dtype": "float32",
        "tensor_parallel_size": 1,
        "enable_sleep_mode": False,
        "max_model_len": 64,
        "enable_lora": True,
        "max_lora_rank": 16,
        "max_cpu_loras": 2,
        "seed": 3,
    }


@pytest.mark.slow
def test_serve_prints_where_it_is_and_ends_whole(
    python: Path, folder: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "posttrain", "serve", folder, "--dtype", "float32"]
    command += ["--device_memory", "0.02", "--log", str(tmp_path / "log")]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        printed = json.loads(serving.stdout.readline())
        engine = VLLMEngine.connect(printed["url"], printed["token"], [1])
        expected = generate_ids(load(), [[5, 6], [7]], GREEDY, [1])
        assert engine([[5, 6], [7]], GREEDY) == expected
        group = engine.client.health().pid
        assert os.getpgid(group) == group != os.getpgid(serving.pid)
        os.kill(serving.pid, signal.SIGKILL)  # its server has to notice by itself
        for _ in range(300):
            if not living(group):
                break
            time.sleep(0.1)
        assert not living(group)
    finally:
        serving.kill()
        serving.wait()
