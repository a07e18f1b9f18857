"""What a stage says of recomputed and compiled layers is what its trainer is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import RecipeError
from posttrain.pipeline.hardware import Hardware
from posttrain.pipeline.stage import arguments
from posttrain.recipe import load_recipe


def told(folder: Path, **stage: Any) -> Any:
    """The trainer's arguments for a stage of SFT."""
    block = {"datasets": [{"path": "rows.jsonl"}], **stage}
    recipe = {"name": "r", "model_name_or_path": "m", "stages": [{"sft": block}]}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    read = load_recipe(folder / "r.yaml")
    return arguments(read, read.stages[0], folder, Hardware(1, None, ""))


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
