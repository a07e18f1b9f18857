"""SIGKILL at twenty moments of a run; the same command goes on, to the same weights bit for bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
EVERY = {
    "max_length": 64,
    "batch_size": 4,
    "per_device_train_batch_size": 2,
    "save_steps": 2,
    "eval_fraction": 0.2,
    "eval_steps": 2,
}
STAGES: dict[str, dict[str, Any]] = {
    # two epochs of three steps; dropout makes the random state count
    "sft": {
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "use_peft": True,
        "lora_r": 4,
        "lora_dropout": 0.1,
    },
    "dpo": {"learning_rate": 1e-3, "max_steps": 5},  # ends within an epoch
}
ROWS = {
    "sft": [{"prompt": f"Say {n}!", "completion": f"It is {n}." * (1 + n % 3)} for n in range(12)],
    "dpo": [
        {"prompt": f"Say {n}!", "chosen": f"It is {n}.", "rejected": "No." * (1 + n % 3)}
        for n in range(12)
    ],
}
# where the bad luck is put (the how-manieth call of what; "a b" is a b after an a), and how many
# functions are still called after its begin
AIMED: dict[str, list[tuple[str, int, int]]] = {
    "sft": [
        ("training_step", 5, 400),  # in a step
        ("_save", 1, 200),  # while weights are written
        ("_save_optimizer_and_scheduler", 2, 60),
        ("_save_rng_state", 3, 5),
        ("move", 2, 2),  # while a checkpoint gets its name
        ("thin_out", 3, 100),  # while an old one is deleted
        ("evaluate", 1, 0),  # between save and evaluation
        ("evaluate", 2, 900),
        ("on_epoch_end", 1, 0),
        ("on_epoch_begin", 2, 3),
        ("export", 1, 1000),
    ],
    "dpo": [
        ("logps_of", 1, 600),  # while the reference's log-probs are computed
        ("logps_of", 3, 20),  # when some of them are in the cache
        ("logps_of append", 2, 4),  # while they are written there
        ("save_file", 1, 10),  # while they are written beside the checkpoints
        ("training_step", 3, 900),
        ("_save", 2, 150),
        ("move", 1, 1),
        ("evaluate", 2, 5),
        ("on_epoch_end", 1, 1),
        ("export", 1, 60),  # after the last step, which must not be taken twice
    ],
}
MOMENTS = 20


def moments(kind: str, calls: int) -> list[dict[str, Any]]:
    """The aimed ones, and random ones among all calls of a run."""
    draw = random.Random(7)
    aimed = [{"calls": name.split() * times, "after": after} for name, times, after in AIMED[kind]]
    rest = range(MOMENTS - len(aimed))
    return aimed + [{"calls": [], "after": int(draw.uniform(0.05, 1) * calls)} for _ in rest]


def carry_out(folder: Path, chains: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    (folder / "jobs.json").write_text(json.dumps({"recipe": "r.yaml", "chains": chains}))
    command = [sys.executable, str(HERE / "killed.py"), "jobs.json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    results: list[list[dict[str, Any]]] = json.loads(done.stdout)
    assert {r["status"] for chain in results for r in chain} <= {0, -9}, done.stderr[-4000:]
    return results


def outcome(run: Path) -> tuple[dict[str, bytes], list[tuple[Any, ...]]]:
    """The weights of a run and what it logged, times left out."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    names = ("step", "loss", "eval_loss", "grad_norm", "rewards/margins")
    rows = [tuple(row.get(name) for name in names) for row in map(json.loads, lines)]
    return {p.parent.parent.name: p.read_bytes() for p in run.glob("*/model/*.safetensors")}, rows


@pytest.mark.parametrize("kind", STAGES)
def test_killed_anywhere_it_ends_with_the_same_weights(
    kind: str, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in ROWS[kind])
    (tmp_path / "rows.jsonl").write_text(rows)
    stage = {"datasets": [{"path": "rows.jsonl"}], **EVERY, **STAGES[kind]}
    recipe = {"name": "killed", "model_name_or_path": checkpoint(), "stages": [{kind: stage}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    [[whole]] = carry_out(tmp_path, [[{"run_dir": "whole", "moment": "count"}]])
    expected = outcome(tmp_path / "whole")
    assert expected[0]
    chains = []
    for number, moment in enumerate(moments(kind, whole["calls"])):
        again = {"run_dir": f"run{number}", "moment": None}
        chains.append([again | {"moment": moment}, again])
    results = carry_out(tmp_path, chains)
    assert len(results) == MOMENTS
    for number, (killed, resumed) in enumerate(results):
        assert killed["status"] == -9 and resumed["status"] == 0, (number, killed, resumed)
        if number < len(AIMED[kind]):
            assert AIMED[kind][number][0].split()[-1] in killed["where"], killed["where"]
        found = outcome(tmp_path / f"run{number}")
        assert found == expected, killed["where"]
