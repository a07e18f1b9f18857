"""The check on a recipe of one's own: what it compares, and that it finds a loss that depends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from posttrain import cli
from posttrain.errors import RecipeError
from posttrain.pipeline.batch_invariance import (
    Gap,
    Split,
    as_json,
    batch_invariance,
    largest_gap,
    pack_length,
    splits,
)
from posttrain.trainers.sft import SFTTrainer

RECIPE = """
name: three
model_name_or_path: meta-llama/Llama-3.2-1B
chat_template: tulu
stages:
  - sft: {datasets: [{path: someone/chats}], loss_reduction: sum}
  - dpo: {datasets: [{path: someone/pairs}], use_peft: true, lora_dropout: 0.5}
  - reward: {datasets: [{path: someone/pairs}], start: sft}
  - rlvr: {datasets: [{path: someone/problems}], start: dpo}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "three.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ending:
        cli.main([str(argument) for argument in arguments])
    return int(ending.value.code or 0)


def test_all_ways_of_a_recipe_agree(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--batch-invariance", recipe, "--smoke", "--rows", "4"]
    assert call(*command, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["worst"] < found["tolerance"] == 1e-5
    assert {s["stage"] for s in found["splits"]} == {"sft", "dpo", "reward"}
    ways = [s["split"] for s in found["splits"] if s["stage"] == "sft"]
    assert ways[:3] == ["4x1", "2x2", "1x4"]
    assert sum("packed" in way for way in ways) >= 2
    assert sum("tokens" in way for way in ways) == 2


def test_a_mean_of_micro_batch_means_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean_of_means(self: SFTTrainer, model: Any, batch: Any) -> torch.Tensor:
        return -self.logps(model, batch).mean() * self.num_items(batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(SFTTrainer, "loss_sum", mean_of_means)
    recipe = tmp_path / "one.yaml"
    recipe.write_text(RECIPE.split("  - dpo")[0], encoding="utf-8")
    only = ["stages.sft.loss_reduction=sequence_mean", "--rows", "4"]
    assert call("doctor", "--batch-invariance", recipe, "--smoke", *only) == 1
    out = capsys.readouterr().out
    assert "NOT the same however it is split" in out
    rows = [line for line in out.splitlines() if line.startswith("sft")]
    assert rows[0].split()[:2] == ["sft", "4x1"]


def test_rlvr_alone_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "rl.yaml"
    head = RECIPE.split("stages:")[0]
    path.write_text(head + "stages:\n  - rlvr: {datasets: [{path: someone/problems}]}\n")
    with pytest.raises(RecipeError, match="sample rows"):
        batch_invariance(path, smoke=True)


def test_the_splits_of_six_rows() -> None:
    rows = Dataset.from_list([{"input_ids": [1] * n} for n in (5, 5, 5, 5, 5, 5)])
    assert pack_length(rows) == 10
    assert list(splits(rows, 10)) == [
        Split(6, 1),
        Split(3, 2),
        Split(1, 6),
        Split(6, 1, False, 10),
        Split(3, 1, True),
        Split(1, 3, True),
        Split(3, 1, True, 10),
    ]
    pair = {"prompt_ids": [1] * 4, "chosen_ids": [1] * 5, "rejected_ids": [1] * 6}
    assert pack_length(Dataset.from_list([pair])) == 8  # of two sides: one pack holds 16


def test_the_largest_gap_by_hand() -> None:
    first = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1e-9])}
    other = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([2e-9])}
    # b is nothing beside a, so its doubling is measured against 1e-4 of the whole
    assert largest_gap(other, first) == (pytest.approx(0.1), "a")
    assert largest_gap({**other, "b": torch.tensor([float("nan")])}, first)[1] == "b"


def test_the_verdict() -> None:
    fine, nan = Gap("sft", "1x1", 1.0, 0.0, 1e-7, "w"), Gap("s", "1x1", 1.0, 0.0, float("nan"), "w")
    assert as_json([fine], 1e-5)["ok"]
    assert not as_json([fine], 1e-8)["ok"]
    assert not as_json([fine, nan, fine], 1e-5)["ok"]
