"""Tiny random checkpoints and a tokenizer, made from nothing; no test reaches the network."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
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
