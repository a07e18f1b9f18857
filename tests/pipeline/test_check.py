"""How a recipe is read on the way to a run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from posttrain.pipeline import read_recipe
from posttrain.pipeline.check import hub_options
from posttrain.recipe import load_recipe

RECIPE = """\
name: t
base_model: org/model
model_revision: abc
tokenizer_name_or_path: org/words
stages:
  - sft: {datasets: [rows.jsonl], max_seq_length: 64}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "t.yaml").write_text(RECIPE)
    return tmp_path / "t.yaml"


def test_aliases_are_told_in_one_plain_line(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = read_recipe(path)
    assert recipe.stages[0].max_length == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"{path}: other tools' spellings, read as ours: "
        "base_model -> model_name_or_path, max_seq_length -> max_length\n"
    )


def test_only_the_first_process_tells(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert read_recipe(path, ["seed=7"]).seed == 7
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
def test_a_revision_is_of_the_base_model_only(path: Path) -> None:
    recipe = load_recipe(path)
    pinned = {"revision": "abc", "trust_remote_code": False}
    assert hub_options(recipe, "org/model") == pinned
    assert hub_options(recipe, "org/words") == pinned | {"revision": None}
    assert hub_options(recipe, "runs/t/1-sft/model") == pinned | {"revision": None}
