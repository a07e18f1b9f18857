"""RL with completions from a vLLM server, in every process of a launch.

`served_worker.py JOB.json`: {"model", "out", "runs": {name: {"way", "config", "adapter", "kill"}}}.
What a process saw of a run goes to `<out>/<name>-<rank>.json`: the rows and weights' versions of
each rollout, the gaps of the server's log-probs to the trainer's, and the log. With `kill` the
second process kills the server in the second rollout, when the first one has all its answers.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.models import Adapter

WORKER = runpy.run_path(str(Path(__file__).parents[1] / "invariants" / "worker.py"))
ROWS = [{"prompt": f"Say {n}."} for n in range(7)]
SERVER = {"name": "vllm", "dtype": "float32", "device_memory": 0.02, "start_seconds": 500}
SERVER |= {"probe_rollouts": 1, "max_gap": 0.01, "mean_gap": 0.001}
CONFIG: dict[str, Any] = {
    "generation": SERVER,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 6,
    "num_mini_batches": 2,
    "beta": 0.01,
    "num_train_epochs": 2,
    "optim": "adamw_torch",
    "learning_rate": 3e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even token ids: a random policy scores about a half."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def unlucky(trainer: RLVRTrainer, done: Path) -> Callable[..., Any]:
    """`trainer.complete`, and in its second call the bad luck."""
    plain, calls = trainer.complete, itertools.count(1)

    def complete(*args: Any, **kwargs: Any) -> Any:
        second = next(calls) == 2
        if second and torch.distributed.get_rank() == 1:
            while not done.exists():
                time.sleep(0.05)
            assert trainer.served is not None
            os.kill(trainer.served.engine.client.health().pid, signal.SIGKILL)
        groups = plain(*args, **kwargs)
        if second:
            done.touch()
        return groups

    return complete


def train(model: str, out: Path, run: dict[str, Any]) -> dict[str, Any]:
    settings = {**CONFIG, **WORKER["WAYS"][run["way"]], **run.get("config", {})}
    settings["generation"] = {**SERVER, **run.get("server", {})}
    adapter = Adapter(**run["adapter"]) if run.get("adapter") else None
    args = RLVRConfig(output_dir=str(out), **settings)
    trainer = RLVRTrainer(model, even_share, args, train_dataset=ROWS, peft_config=adapter)
    found: dict[str, Any] = {"rows": [], "versions": [], "gaps": [], "adapters": []}
    inner = trainer.fill

    def watch(rollouts: list[Any]) -> None:
        found["rows"].append([int(r.row["index"]) for r in rollouts])
        found["versions"].append(sorted({c.version for r in rollouts for c in r.completions}))
        assert trainer.served is not None
        found["adapters"].append([v.adapter for v in trainer.served.engine.loaded])

    def fill(batches: list[Any], fresh: bool) -> None:
        inner(batches, fresh)
        gaps = [(b["sampler_logps"] - b["old_logps"].cpu()).abs() for b in batches]
        found["gaps"].append(torch.cat(gaps).tolist())

    trainer.on_rollout, trainer.fill = watch, fill  # type: ignore[method-assign]
    if run.get("kill"):
        trainer.complete = unlucky(trainer, out.parent / "first-has-its-answers")  # type: ignore
    trainer.train()
    assert trainer.served is None
    found["log"] = [row for row in trainer.state.log_history if "loss" in row]
    trainer.accelerator.wait_for_everyone()
    return found


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for name, run in job["runs"].items():
        out = Path(job["out"])
        found = train(job["model"], out / name, run)
        rank = torch.distributed.get_rank()
        (out / f"{name}-{rank}.json").write_text(json.dumps(found), encoding="utf-8")
        WORKER["forget"]()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
