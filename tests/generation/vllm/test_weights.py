"""Weights in a folder that two processes read, and that nobody leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from posttrain.errors import ModelError
from posttrain.generation.vllm.server.posttrain_vllm_files import shapes, unlike
from posttrain.generation.vllm.weights import PREFIX, Shelf, clear_away, size_of

HOLD = "import sys, time\nfrom pathlib import Path\n"
HOLD += "from posttrain.generation.vllm.weights import Shelf\n"
HOLD += "shelf = Shelf(1, Path(sys.argv[1]))\nprint(shelf.folder, flush=True)\ntime.sleep(600)\n"


@pytest.fixture
def model(checkpoint: Callable[..., str]) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint())


def test_a_version_is_a_checkpoint_in_the_type_of_the_server(model: Any, tmp_path: Path) -> None:
    shelf = Shelf(size_of(model), tmp_path)
    version = shelf.write(model, 3, dtype=torch.bfloat16)
    written = load_file(version.folder / "model.safetensors")
    expected = {name: value.bfloat16() for name, value in model.state_dict().items()}
    assert written.keys() == expected.keys() and not version.adapter
    assert all(torch.equal(value, expected[name]) for name, value in written.items())
    other = {name: value + 1 for name, value in model.state_dict().items()}
    given = load_file(shelf.write(model, 4, state=other).folder / "model.safetensors")
    assert all(torch.equal(value, other[name]) for name, value in given.items())
    shelf.drop(version)
    assert sorted(p.name for p in shelf.folder.iterdir()) == ["4", "lock"]
    shelf.close()
    assert not shelf.folder.exists()


def test_of_an_adapted_model_the_adapter_alone_is_sent(model: Any, tmp_path: Path) -> None:
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    shelf = Shelf(size_of(adapted), tmp_path)
    version = shelf.write(adapted, 1)
    written = load_file(version.folder / "adapter_model.safetensors")
    assert version.adapter and all("lora_" in name for name in written)
    assert size_of(adapted) == sum(v.numel() * v.element_size() for v in written.values())
    shelf.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_adapters_that_vllm_would_load_in_part(
    options: dict[str, Any], what: str, model: Any, tmp_path: Path
) -> None:
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], **options))
    shelf = Shelf(1, tmp_path)
    with pytest.raises(ModelError, match=f"vLLM does not load {what}.*plain LoRA"):
        shelf.write(adapted, 1)
    shelf.close()


def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    (tmp_path / "mine").mkdir()
    clear_away(tmp_path)
    assert folder.is_dir() and folder.name.startswith(PREFIX)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    clear_away(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_server_knows_weights_of_another_model(model: Any, tmp_path: Path) -> None:
    state = model.state_dict()
    model.save_pretrained(tmp_path / "same")
    known = shapes(str(tmp_path / "same"))
    assert known["model.embed_tokens.weight"] == [320, 32] and known.keys() == state.keys()
    assert unlike(str(tmp_path / "same"), known) == ""
    assert "server and trainer have to share that folder" in unlike(str(tmp_path / "no"), known)
    wider = {**state, "model.embed_tokens.weight": torch.zeros(328, 32)}
    model.save_pretrained(tmp_path / "wider", state_dict=wider)
    assert unlike(str(tmp_path / "wider"), known).startswith(
        "model.embed_tokens.weight is [328, 32] and was [320, 32] in the checkpoint"
    )
    fewer = {k: v for k, v in state.items() if k != "model.norm.weight"}
    model.save_pretrained(tmp_path / "fewer", state_dict=fewer)
    assert "model.norm.weight is not there" in unlike(str(tmp_path / "fewer"), known)


def test_a_head_that_is_the_embedding_may_be_written_or_not(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    folder = checkpoint(tie_word_embeddings=True)
    known = shapes(folder)
    assert "lm_head.weight" not in known
    model = AutoModelForCausalLM.from_pretrained(folder)
    shelf = Shelf(size_of(model), tmp_path)
    cast = shelf.write(model, 1, dtype=torch.bfloat16)  # the copies are no longer one tensor
    assert unlike(str(cast.folder), known) == ""
    assert unlike(folder, {**known, "lm_head.weight": [320, 32]}) == ""
    shelf.close()
