"""The loss of a reward stage, and margins on their way from a file to the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

from posttrain import RewardConfig, RewardTrainer
from posttrain.errors import RecipeError
from posttrain.pipeline import build_data, check, read_recipe
from posttrain.pipeline.hardware import Hardware
from posttrain.pipeline.stage import arguments

PAIRS = [
    {"prompt": "Name an animal.", "chosen": f"A cat, {n}.", "rejected": "A car.", "sure": n / 4}
    for n in range(1, 9)
]


def recipe_file(folder: Path, model: str, loss: dict[str, Any], **source: Any) -> Path:
    rows = folder / "pairs.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    stage = {"datasets": [{"path": str(rows), **source}], "max_length": 128, "loss": loss}
    path = folder / "recipe.yaml"
    recipe = {"name": "r", "model_name_or_path": model, "chat_template": "tulu"}
    path.write_text(yaml.safe_dump({**recipe, "stages": [{"reward": stage}]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("named", [True, False])
def test_margins_of_a_file_reach_the_trainer(
    named: bool, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    columns = {"columns": {"margin": "sure"}} if named else {}
    path = recipe_file(tmp_path, checkpoint(), {"name": "bradley_terry", "margin": True}, **columns)
    build_data(path, tmp_path / "out")
    [folder] = [p.parent for p in (tmp_path / "out").rglob("dataset_info.json")]
    rows = load_from_disk(str(folder))
    if not named:
        assert set(rows.column_names) == {"prompt_ids", "chosen_ids", "rejected_ids", "source"}
        return
    assert sorted(rows["margin"]) == [n / 4 for n in range(1, 9)]
    args = RewardConfig(output_dir=str(tmp_path / "run"), loss={"name": "bradley_terry"})
    trainer = RewardTrainer(checkpoint(), args, train_dataset=rows)
    batch = trainer.data_collator([{**rows[i], "index": i} for i in range(8)])
    assert batch["margin"].tolist() == rows["margin"][:]


def test_the_loss_of_a_stage_is_the_trainers(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    loss = {"name": "bradley_terry", "center_rewards_coefficient": 0.01, "margin": False}
    recipe = read_recipe(recipe_file(tmp_path, checkpoint(), loss))
    args = arguments(recipe, recipe.stages[0], tmp_path, Hardware(1, None, ""))
    assert args.reward_loss().center_rewards_coefficient == 0.01
    assert args.reward_loss().column is None


def test_a_misspelt_option_is_refused_before_anything_runs(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    loss = {"name": "bradley_terry", "centre": 0.01}
    recipe = read_recipe(recipe_file(tmp_path, checkpoint(), loss))
    with pytest.raises(RecipeError, match=r"stages\[0\]\.reward\.loss: .*has no option 'centre'"):
        check(recipe)
