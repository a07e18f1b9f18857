"""SIGKILL at many moments of a run; the same command goes on, to the same weights bit for bit."""

from __future__ import annotations

import hashlib
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
    # a rollout lasts for four steps, the checkpoint of every other one is from within it
    "ppo": {
        "advantage": {"name": "gae"},
        "loss": {"name": "ppo"},
        "kl_in": "reward",
        "beta": 0.1,
        "kl_controller": {"name": "adaptive", "target": 0.05, "horizon": 20},
        "num_generations": 1,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "reward_workers": 0,
        "learning_rate": 3e-3,
        "max_steps": 7,
    },
    "grpo": {
        "batch_size": 8,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "num_mini_batches": 2,
        "resample_rounds": 2,
        "reward_workers": 1,
        "beta": 0.05,
        "use_peft": True,
        "lora_r": 4,
        "learning_rate": 3e-2,
        "max_steps": 7,  # in the second epoch
        "load_best_model_at_end": True,
    },
}
PROBLEMS: list[dict[str, Any]] = [
    {"prompt": f"Say {n}!", "ground_truth": "[a-m]", "verifier": "regex"} for n in range(12)
]
for name in ("ppo", "grpo"):
    STAGES[name] |= {"max_prompt_length": 58, "max_completion_length": 6, "max_wrong_gold": None}
ROWS = {
    "ppo": PROBLEMS,
    "grpo": PROBLEMS,
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
    "ppo": [
        ("generate_ids", 1, 500),  # in the first rollout
        ("fill", 2, 600),  # in another: while old log-probs and values are computed
        ("credit", 2, 20),  # before the weight of the KL moves
        ("get_batch_samples", 4, 0),  # between two steps of one rollout
        ("training_step", 7, 700),  # in a step
        ("rollout_file save", 1, 5),  # while what is left of a rollout is saved
        ("_save_optimizer_and_scheduler save_file", 2, 1),  # while the value model is
        ("evaluate", 2, 800),
    ],
    "grpo": [
        ("refill", 1, 900),  # while groups are drawn anew
        ("roll_out keep", 2, 30),  # while completions are written down
        ("get_batch_samples", 2, 0),
        ("training_step", 5, 400),
        ("_save", 1, 150),
        ("evaluate", 1, 0),
        ("evaluate", 2, 700),
        ("on_evaluate _save", 2, 100),  # while better weights go over the best so far
    ],
}
MOMENTS = {"sft": 20, "dpo": 20, "ppo": 12, "grpo": 12}
KINDS = {"ppo": "rlvr", "grpo": "rlvr"}
# one run that is killed again each time that it goes on: each time a little further
AGAIN = [
    ("evaluate", 1, 300),
    ("training_step", 1, 200),
    ("_save", 1, 40),
    ("evaluate", 2, 10),
    ("generate_ids", 2, 200),
]


# what must lie there to be compared
EXPECTED = {
    "sft": {"model.safetensors", "adapter_model.safetensors"},
    "dpo": {"model.safetensors"},
    "ppo": {"model.safetensors", "value_model.safetensors", "000004-0.parquet"},
    "grpo": {"model.safetensors", "adapter_model.safetensors", "000006-0.parquet"},
}
LOGGED = ("step", "loss", "grad_norm", "eval_loss", "rewards/margins", "reward", "eval_reward")
LOGGED += ("resampled", "kl", "kl_beta", "kl_completion", "value_loss", "ratio_max")


def moments(kind: str, calls: int) -> list[dict[str, Any]]:
    """The aimed ones, and random ones among all calls of a run."""
    draw = random.Random(7)
    rest = range(MOMENTS[kind] - len(AIMED[kind]))
    # in RL the waiting for verdicts makes their number vary
    most = 0.9 if kind in KINDS else 1
    return [
        *(aimed(*where) for where in AIMED[kind]),
        *({"calls": [], "after": int(draw.uniform(0.05, most) * calls)} for _ in rest),
    ]


def aimed(name: str, times: int, after: int) -> dict[str, Any]:
    return {"calls": name.split() * times, "after": after}


def carry_out(folder: Path, chains: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    (folder / "jobs.json").write_text(json.dumps({"recipe": "r.yaml", "chains": chains}))
    command = [sys.executable, str(HERE / "killed.py"), "jobs.json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    results: list[list[dict[str, Any]]] = json.loads(done.stdout)
    assert {r["status"] for chain in results for r in chain} <= {0, -9}, done.stderr[-4000:]
    return results


def outcome(run: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Hashes of a run's weights, its checkpoints' and its rollouts; what it logged but times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [tuple(row.get(name) for name in LOGGED) for row in map(json.loads, lines)]
    kept = ("*/model/*.safetensors", "*/checkpoint-*/*.safetensors", "*/rollouts/*.parquet")
    paths = [path for pattern in kept for path in run.glob(pattern)]
    hashes = {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    return hashes, rows


@pytest.mark.parametrize("name", STAGES)
def test_killed_anywhere_it_ends_with_the_same_weights(
    name: str, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in ROWS[name])
    (tmp_path / "rows.jsonl").write_text(rows)
    stage = {KINDS.get(name, name): {"datasets": [{"path": "rows.jsonl"}], **EVERY, **STAGES[name]}}
    recipe = {"name": "killed", "model_name_or_path": checkpoint(), "stages": [stage]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    [[whole]] = carry_out(tmp_path, [[{"run_dir": "whole", "moment": "count"}]])
    expected = outcome(tmp_path / "whole")
    assert EXPECTED[name] <= {Path(path).name for path in expected[0]}
    chains = []
    for number, moment in enumerate(moments(name, whole["calls"])):
        again = {"run_dir": f"run{number}", "moment": None}
        chains.append([again | {"moment": moment}, again])
    if name in KINDS:
        again = {"run_dir": f"run{len(chains)}", "moment": None}
        chains.append([*(again | {"moment": aimed(*where)} for where in AGAIN), again])
    results = carry_out(tmp_path, chains)
    assert len(results) == len(chains)
    for number, jobs in enumerate(results):
        assert [job["status"] for job in jobs] == [-9] * (len(jobs) - 1) + [0], (number, jobs)
        ends = [job["where"] for job in jobs[:-1]]
        wanted = AIMED[name][number : number + 1] if len(jobs) == 2 else AGAIN
        for where, end in zip(wanted, ends, strict=False):
            assert where[0].split()[-1] in end, (number, end)
        found = outcome(tmp_path / f"run{number}")
        assert found[1] == expected[1], (number, ends)
        assert found[0] == expected[0], (number, ends)
