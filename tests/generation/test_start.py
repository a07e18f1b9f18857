"""The engine that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from posttrain.errors import RecipeError, ServerError
from posttrain.generation import LocalSettings, engine_settings
from posttrain.generation.local import LocalEngine
from posttrain.generation.start import start_engine, with_room
from posttrain.generation.vllm.launch import TOKEN
from posttrain.generation.vllm.settings import VLLMSettings


def test_a_recipes_words_become_settings() -> None:
    assert engine_settings("local") == LocalSettings()
    assert engine_settings({"name": "local", "batch_size": 8}).batch_size == 8  # type: ignore[union-attr]
    assert engine_settings({"name": "vllm", "device_memory": 0.4}) == VLLMSettings(0.4)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("vlm", "unknown generation engine 'vlm'; did you mean 'vllm'"),
        ({"name": "vllm", "device_memroy": 0.4}, "did you mean 'device_memory'"),
        ({"name": "vllm", "device_memory": 40}, "device_memory: 40 must be a share"),
        ({"name": "local", "batch_size": 0}, "batch_size: 0 must be at least 1"),
    ],
)
def test_what_no_engine_knows_is_refused(spec: Any, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        engine_settings(spec)


def test_engines_are_started_or_found(
    checkpoint: Callable[..., str], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    there = {"start": checkpoint(), "log": Path("log")}
    assert start_engine(LocalSettings(8), model, [1], **there) == LocalEngine(model, [1], 8)
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ServerError, match=f"set {TOKEN}"):
        start_engine(VLLMSettings(url=url), model, [1], **there)
    monkeypatch.setenv(TOKEN, "secret")
    with pytest.raises(ServerError, match="no server answers"):
        start_engine(VLLMSettings(url=url), model, [1], **there)
    with pytest.raises(ServerError, match="no server answers"):  # the address is the main one's
        start_engine(
            VLLMSettings(), model, [1], main=False, share=lambda _: (url, "secret"), **there
        )


def test_the_server_gets_room_for_the_adapter(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    assert with_room(VLLMSettings(), model).lora_rank == 0
    adapted = get_peft_model(model, LoraConfig(r=12, target_modules=["q_proj"]))
    assert with_room(VLLMSettings(), adapted).lora_rank == 12
    assert with_room(VLLMSettings(lora_rank=32), adapted).lora_rank == 32
