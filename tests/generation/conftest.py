"""Random models of architectures whose configurations have names of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

OWN_NAMES = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
}


@pytest.fixture(scope="session")
def build(checkpoint: Callable[..., str]) -> Callable[..., Any]:
    """`build(model_type, **configuration)`: a model in evaluation mode, not to be changed."""
    made: dict[str, Any] = {}

    def make(kind: str = "llama", **fields: Any) -> Any:
        key = repr((kind, sorted(fields.items())))
        if key not in made and kind in OWN_NAMES:
            torch.manual_seed(1)
            shape = {"vocab_size": 320, "initializer_range": 0.15, "eos_token_id": 1}
            config = AutoConfig.for_model(kind, **shape, **OWN_NAMES[kind], **fields)
            made[key] = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        elif key not in made:
            made[key] = AutoModelForCausalLM.from_pretrained(checkpoint(kind, **fields)).eval()
        return made[key]

    return make
