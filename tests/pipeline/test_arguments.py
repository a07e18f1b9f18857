"""What a stage says of its layers and of its engine is what its trainer is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import PosttrainError, RecipeError
from posttrain.generation.vllm import launch
from posttrain.pipeline.check import check_generation
from posttrain.pipeline.hardware import Hardware
from posttrain.pipeline.stage import arguments
from posttrain.recipe import Recipe, load_recipe


def written(folder: Path, kind: str = "sft", **stage: Any) -> Recipe:
    """A recipe of one stage."""
    block = {"datasets": [{"path": "rows.jsonl"}], **stage}
    recipe = {"name": "r", "model_name_or_path": "m", "stages": [{kind: block}]}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return load_recipe(folder / "r.yaml")


def told(folder: Path, kind: str = "sft", **stage: Any) -> Any:
    """The trainer's arguments for the stage."""
    recipe = written(folder, kind, **stage)
    return arguments(recipe, recipe.stages[0], folder, Hardware(1, None, ""))


@pytest.mark.parametrize(
    ("value", "on", "chosen"),
    [(False, False, None), (True, True, None), (2, True, {"every_n_layers": 2}), (0, False, None)],
)
def test_layers_that_are_recomputed(value: Any, on: bool, chosen: Any, tmp_path: Path) -> None:
    args = told(tmp_path, gradient_checkpointing=value)
    assert args.activation_checkpointing is on
    assert args.activation_checkpointing_kwargs == chosen


def test_a_negative_number_of_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="gradient_checkpointing"):
        told(tmp_path, gradient_checkpointing=-1)


def test_layers_that_are_compiled(tmp_path: Path) -> None:
    assert told(tmp_path).compile_layers is None
    args = told(tmp_path, torch_compile=True)
    assert args.compile_layers == "inductor"
    assert not args.torch_compile  # the model as a whole is not


def test_the_engine_that_completes_prompts(tmp_path: Path) -> None:
    assert told(tmp_path, "rlvr").generation_batch_size == 64
    assert told(tmp_path, "rlvr", generation={"batch_size": 8}).generation_batch_size == 8
    server = {"name": "vllm", "device_memory": 0.4}
    assert told(tmp_path, "rlvr", generation=server).generation == server


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("vlm", "did you mean 'vllm'"),
        ({"batch_sise": 8}, "did you mean 'batch_size'"),
        ({"name": "vllm", "device_memory": 0.4}, "make vllm-env"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused(
    spec: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "CHECKOUT", tmp_path)  # no environment of a server there
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(launch.PYTHON, raising=False)
    stage = written(tmp_path, "rlvr", generation=spec).stages[0]
    with pytest.raises(PosttrainError, match=why):
        check_generation(stage)
