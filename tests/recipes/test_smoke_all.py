"""Every shipped recipe, end to end with `--smoke`: no network, no data, a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.recipe import load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = [
    pytest.param(
        path.relative_to(ROOT / "recipes"),
        marks=pytest.mark.slow if path.parent.name == "mixtures" else (),
    )
    for pattern in ("*.yaml", "examples/*.yaml", "mixtures/*.yaml")
    for path in sorted((ROOT / "recipes").glob(pattern))
]


def test_there_are_recipes() -> None:
    assert {
        "tiny.yaml",
        "tiny_ppo.yaml",
        "tulu.yaml",
        "tulu31.yaml",
        "examples/local_files.yaml",
    } <= {str(p.values[0]) for p in RECIPES}


@pytest.fixture(scope="module")
def smoked(
    tmp_path_factory: pytest.TempPathFactory, run_recipe: Callable[..., str]
) -> Callable[[Path], Path]:
    """`smoked(name)`: the folder in which a recipe has been run, once."""
    folders: dict[Path, Path] = {}

    def _smoked(name: Path) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.stem)
            run_recipe(ROOT / "recipes" / name, folders[name], "--smoke")
        return folders[name]

    return _smoked


@pytest.mark.parametrize("name", RECIPES, ids=str)
def test_smoke(
    name: Path, smoked: Callable[[Path], Path], check_run: Callable[..., dict[str, Any]]
) -> None:
    kinds = [stage.kind for stage in load_recipe(ROOT / "recipes" / name).stages]
    report = check_run(smoked(name) / "run", kinds)
    assert all(stage["steps"] == 2 for stage in report["stages"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [recipe for recipe in RECIPES if not recipe.marks], ids=str)
def test_a_second_run_does_nothing(
    name: Path, smoked: Callable[[Path], Path], run_recipe: Callable[..., str]
) -> None:
    folder = smoked(name)
    report = json.loads((folder / "run/report.json").read_text())
    weights = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    log = run_recipe(ROOT / "recipes" / name, folder, "--smoke")
    assert log.count("done before, skipped") == len(report["stages"])
    assert log.count("evaluated before, skipped") == len(report["evals"])
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == weights
    assert json.loads((folder / "run/report.json").read_text()) == report
