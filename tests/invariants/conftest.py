"""Training on one process and on two, of whatever the tests here want trained."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parent / "worker.py"


@pytest.fixture(scope="session")
def train_all(on_two: Callable[..., Any]) -> Callable[..., None]:
    """`train_all(runs, folder)`: train them (worker.py says what a run is).

    All those on two processes are of one launch: to begin one costs more than what it trains.
    """

    def train(runs: Sequence[Mapping[str, Any]], folder: Path) -> None:
        alone = runpy.run_path(str(WORKER))["train"]
        for run in runs:
            if run["way"] == "single":
                alone(run)
        many = [run for run in runs if run["way"] != "single"]
        if many:
            (folder / "job.json").write_text(json.dumps({"runs": many}), encoding="utf-8")
            on_two(WORKER, folder / "job.json")

    return train


@pytest.fixture(scope="session")
def log_of() -> Callable[[Path], list[dict[str, Any]]]:
    """`log_of(out)`: what a run logged at each step."""

    def read(out: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((out / "log.json").read_text(encoding="utf-8"))
        return rows

    return read
