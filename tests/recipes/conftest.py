"""Recipes run as a user runs them: a process of their own, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


def _run(recipe: Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "posttrain", "run", str(recipe), *arguments]
    command += ["--run_dir", str(folder / "run")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def _check_model(folder: Path, kind: str) -> None:
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    model, found = auto.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert kind != "reward" or model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template and tokenizer.eos_token_id == model.config.eos_token_id
    assert any(folder.glob("*.safetensors"))


def _check_stage(run: Path, folder: Path, stage: dict[str, Any], logged: set[str]) -> None:
    assert stage["status"] == "done" and stage["steps"] >= 1 and stage["seconds"] > 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    # equal rewards leave a group, and then perhaps a whole step, without a loss
    measure = "reward" if stage["kind"] == "rlvr" else "loss"
    sources = {source["source"] for source in manifest["mixture"]["sources"]}
    seen = {source for source in sources if f"{measure}/{source}" in logged}
    # two steps of a smoke run cannot show every one of twenty sources
    assert seen == sources if len(sources) <= 3 else seen
    samples = (folder / "samples.txt").read_text()
    if stage["kind"] == "rlvr":
        assert "--- ground truth (" in samples
    else:
        assert re.search(r"⟦[^⟦⟧]+</s>⟧", samples)
    _check_model(folder / "model", stage["kind"])


def _check_run(run: Path, kinds: Sequence[str]) -> dict[str, Any]:
    report = json.loads((run / "report.json").read_text())
    assert [stage["kind"] for stage in report["stages"]] == list(kinds)
    logged: dict[str, set[str]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        logged.setdefault(row["stage"], set()).update(row)
    for number, stage in enumerate(report["stages"], 1):
        folder = run / f"{number}-{stage['name']}"
        _check_stage(run, folder, stage, logged[stage["name"]])
    scored = {"base", *(stage["name"] for stage in report["stages"])}
    assert report["evals"].keys() <= scored and "base" in report["evals"]
    assert "<html" in (run / "report.html").read_text()
    assert (run / "mixture.lock").is_file() and (run / "recipe.resolved.yaml").is_file()
    return report


@pytest.fixture(scope="session")
def run_recipe() -> Callable[..., str]:
    """`run_recipe(recipe, folder, *arguments)`: its log; the run folder is `folder/run`."""
    return _run


@pytest.fixture(scope="session")
def check_run() -> Callable[..., dict[str, Any]]:
    """`check_run(run, kinds)`: everything a run folder promises; returns its report."""
    return _check_run
