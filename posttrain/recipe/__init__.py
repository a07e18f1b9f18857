"""The recipe: YAML -> frozen dataclasses. What it may say: spec.py, stages.py."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.dump import dump_recipe, to_dict
from posttrain.recipe.load import load_recipe
from posttrain.recipe.overrides import parse_override_args
from posttrain.recipe.source import Source
from posttrain.recipe.spec import Eval, Recipe, Task
from posttrain.recipe.stages import DPO, RLVR, SFT, STAGES, Pretrain, Reward, Stage, stage_name

__all__ = [
    "DPO",
    "RLVR",
    "SFT",
    "STAGES",
    "Eval",
    "Pretrain",
    "Recipe",
    "Reward",
    "Source",
    "Stage",
    "Task",
    "dump_recipe",
    "json_schema",
    "load_recipe",
    "parse_override_args",
    "stage_name",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    if name != "json_schema":
        raise AttributeError(f"module 'posttrain.recipe' has no attribute {name!r}")
    from posttrain.recipe.schema import json_schema  # late, so that `python -m` can run the module

    return json_schema
