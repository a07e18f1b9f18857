"""The engine that a recipe names, for a trainer of one process or of several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.errors import ServerError
from posttrain.generation import EngineSettings, LocalSettings
from posttrain.generation.base import Engine
from posttrain.generation.local import LocalEngine
from posttrain.generation.vllm.engine import VLLMEngine
from posttrain.generation.vllm.launch import TOKEN
from posttrain.generation.vllm.settings import VLLMSettings

Address = tuple[str, str]  # and the token


def start_engine(
    settings: EngineSettings,
    model: Any,
    stop: Sequence[int],
    *,
    start: str,
    log: Path,
    main: bool = True,
    share: Callable[[Address | None], Address] | None = None,
) -> Engine:
    """The engine of a trainer, with whatever it has to start.

    A `VLLMEngine` has the weights of `start` (version 0) until the trainer calls `push(model)`: at
    the beginning, if it goes on from elsewhere, and after every update. `close()` ends it.

    Args:
        model: that is trained; a peft model decides how large an adapter the server has room for.
        stop: tokens that end an answer.
        start: folder or hub id of the weights that a server starts with.
        log: file for what a server says.
        main: whether this process starts the server; the others connect to it.
        share: gives every process what the main one has; needed where there are several.

    Raises:
        ServerError: there is no vLLM, it does not start, or no token for a server that runs.
    """
    if isinstance(settings, LocalSettings):
        return LocalEngine(model, stop, settings.batch_size, settings.static_shapes)
    if not main and share is not None:
        return VLLMEngine.connect(*share(None), stop, settings)
    engine = connect_or_start(with_room(settings, model), stop, start, log)
    if share is not None:
        share((engine.client.url, engine.client.token))
    return engine


def connect_or_start(
    settings: VLLMSettings, stop: Sequence[int], start: str, log: Path
) -> VLLMEngine:
    """A server that runs already, or one of our own."""
    if settings.url is None:
        return VLLMEngine.start(start, stop, settings, log)
    if TOKEN not in os.environ:
        raise ServerError(
            f"generation.url: {settings.url} needs a token; set {TOKEN} to the one that posttrain "
            "serve printed"
        )
    return VLLMEngine.connect(settings.url, os.environ[TOKEN], stop, settings)


def with_room(settings: VLLMSettings, model: Any) -> VLLMSettings:
    """Settings with room for the model's adapter, unless they say how much."""
    ranks = [getattr(c, "r", 0) for c in getattr(model, "peft_config", {}).values()]
    return settings if settings.lora_rank or not ranks else replace(settings, lora_rank=max(ranks))
