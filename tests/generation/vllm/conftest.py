"""One vLLM server for all tests of a session, and models to push to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.errors import ServerError
from posttrain.generation.vllm.engine import VLLMEngine
from posttrain.generation.vllm.launch import vllm_python
from posttrain.generation.vllm.settings import VLLMSettings

STOPS = list(range(1, 320, 12))  # so many that answers end at different steps
SETTINGS = VLLMSettings(dtype="float32", lora_rank=8, device_memory=0.02, start_seconds=300)


def drawn(model: Any, seed: int) -> Any:
    """Other weights of the same shape, in place."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.15)
    return model


@pytest.fixture(scope="session")
def folder(checkpoint: Callable[..., str]) -> str:
    """What servers start from; vLLM's attention on a CPU has no smaller heads."""
    return checkpoint(head_dim=32)


@pytest.fixture(scope="session")
def load(folder: str) -> Callable[..., Any]:
    """`load(seed)`: a model of the server's shape; without a seed, the one that it starts from."""

    def make(seed: int | None = None) -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        return model if seed is None else drawn(model, seed)

    return make


@pytest.fixture(scope="session")
def python() -> Path:
    try:
        return vllm_python()
    except ServerError as error:
        pytest.skip(f"no vLLM here: {error}")


@pytest.fixture(scope="session")
def served(
    python: Path, folder: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VLLMEngine]:
    """An engine over a real server of its own."""
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    with VLLMEngine.start(folder, STOPS, SETTINGS, log) as engine:
        yield engine


@pytest.fixture
def engine(served: VLLMEngine, load: Callable[..., Any]) -> VLLMEngine:
    """The engine with the weights that it started from, whatever a test before has pushed."""
    if served.loaded:
        served.push(load())
    return served
