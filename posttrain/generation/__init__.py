"""Who completes prompts: transformers in process, or a vLLM server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import RecipeError, build
from posttrain.generation.vllm.settings import VLLMSettings


@dataclass(frozen=True)
class LocalSettings:
    """In process, with the trainer's own weights.

    Attributes:
        batch_size: prompts whose answers are under way at a time.
        static_shapes: every step has the same shapes, which a GPU replays as CUDA graphs; `None`:
            on a GPU.
    """

    batch_size: int = 64
    static_shapes: bool | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RecipeError(f"batch_size: {self.batch_size} must be at least 1")


EngineSettings = LocalSettings | VLLMSettings
ENGINES: dict[str, type[EngineSettings]] = {"local": LocalSettings, "vllm": VLLMSettings}


def engine_settings(spec: Mapping[str, Any] | str) -> EngineSettings:
    """What a recipe says of the engine: `{name: vllm, device_memory: 0.5}`.

    Raises:
        RecipeError: an unknown engine, an unknown option or a value that it refuses.
    """
    settings: EngineSettings = build("generation engine", ENGINES, spec)
    return settings
