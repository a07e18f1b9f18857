"""One vLLM server beside two training processes: both ask it, and it has what they train."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import ServerError
from posttrain.generation.vllm.launch import vllm_python

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "served_worker.py"
PPO = {"advantage": "gae", "loss": "ppo", "num_generations": 1, "per_device_train_batch_size": 1}
RUNS: dict[str, dict[str, Any]] = {
    "ddp": {"way": "ddp"},
    "ddp_lora": {"way": "ddp", "adapter": {"r": 4, "alpha": 8}},
    "zero3_ppo": {"way": "zero3", "config": PPO},
    "zero3_broadcast": {"way": "zero3", "server": {"weights": "broadcast"}},
    "killed": {"way": "ddp", "kill": True},
    "killed_broadcast": {"way": "ddp", "kill": True, "server": {"weights": "broadcast"}},
}
Seen = dict[str, Any]


@pytest.fixture(scope="module")
def seen(
    checkpoint: Callable[..., str],
    on_two: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], list[Seen]]:
    """`seen(run)`: what each of the two processes saw."""
    try:
        vllm_python()
    except ServerError as error:
        pytest.skip(f"no vLLM here: {error}")
    done: dict[str, list[Seen]] = {}

    def run(name: str) -> list[Seen]:
        if name not in done:
            out = tmp_path_factory.mktemp(name)
            job = {"model": checkpoint(head_dim=32), "out": str(out), "runs": {name: RUNS[name]}}
            (out / "job.json").write_text(json.dumps(job), encoding="utf-8")
            on_two(WORKER, out / "job.json")
            paths = [out / f"{name}-{rank}.json" for rank in range(2)]
            done[name] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return done[name]

    return run


@pytest.mark.parametrize("name", RUNS)
def test_every_prompt_is_completed_once_by_the_weights_as_they_are(
    name: str, seen: Callable[[str], list[Seen]]
) -> None:
    """Two epochs of seven prompts, two at a step: rollouts of 4 and 3, twice."""
    first, second = seen(name)
    rollouts = [a + b for a, b in zip(first["rows"], second["rows"], strict=True)]
    assert [len(rows) for rows in rollouts] == [4, 3, 4, 3]
    assert [len(rows) for rows in second["rows"]] == [2, 1, 2, 1]
    for epoch in (rollouts[:2], rollouts[2:]):
        assert sorted(row for rows in epoch for row in rows) == list(range(7))
    assert first["versions"] == second["versions"] == [[1], [2], [3], [4]]


@pytest.mark.parametrize("name", RUNS)
def test_log_probs_of_both_processes_are_the_trainers(
    name: str, seen: Callable[[str], list[Seen]]
) -> None:
    for one in seen(name):
        assert len(one["gaps"]) == 4
        for gaps in one["gaps"]:
            assert gaps and max(gaps) < 1e-3 and sum(gaps) / len(gaps) < 1e-4


@pytest.mark.parametrize("name", RUNS)
def test_updates_are_finite_and_move_the_policy(
    name: str, seen: Callable[[str], list[Seen]]
) -> None:
    log = seen(name)[0]["log"]
    assert len(log) == 8
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in log)
    assert all(row["skipped_steps"] == 0 for row in log)
    assert log[0]["ratio_max"] == pytest.approx(1, abs=1e-5) and log[1]["ratio_max"] > 1.001
    rolled = [row for row in log if "reward" in row]
    assert len(rolled) == 4 and all(row["seconds/sync"] > 0 for row in rolled)


@pytest.mark.parametrize("name", RUNS)
def test_adapters_are_sent_as_adapters(name: str, seen: Callable[[str], list[Seen]]) -> None:
    """By the first process; the other one sends nothing."""
    first, second = seen(name)
    assert first["adapters"] == [["adapter" in RUNS[name]]] * 4
    assert second["adapters"] == [[]] * 4
