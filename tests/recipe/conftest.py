"""Recipes written by the test itself, loaded from a real file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe import Recipe, load_recipe


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Recipe]:
    """Write YAML text to recipe.yaml and load it."""

    def _load(text: str, *overrides: str, stage: str | None = None) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, overrides, stage=stage)

    return _load


@pytest.fixture
def faults(load: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """The faults of YAML text, each as `line 3: path: message`."""

    def _faults(text: str, *overrides: str, stage: str | None = None) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, stage=stage)
        return [str(fault) for fault in caught.value.faults]

    return _faults


@pytest.fixture
def stage_faults(faults: Callable[..., list[str]]) -> Callable[[str, str], list[str]]:
    """The faults of one stage, whose keys start on line 5."""

    def _stage_faults(kind: str, body: str) -> list[str]:
        lines = "".join(f"      {line}\n" for line in body.strip().splitlines())
        return faults(f"name: t\nmodel_name_or_path: m\nstages:\n  - {kind}:\n{lines}")

    return _stage_faults
