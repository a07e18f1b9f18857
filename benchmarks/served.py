"""RL whose completions come from a vLLM server: what two of its settings win.

    python benchmarks/served.py [--quick] [--case NAME ...] --json OUT

The trainer has one thread and the server another. An update is 8 GSM8K prompts with 8 completions
each of at most 256 tokens; the first one, in which the server starts, is not timed.

- `one ahead`: updates per minute with `rollouts_ahead: 1`, beside `rollouts_ahead: 0`.
- `broadcast`: pushes of the weights per minute (74 MB, fp32) with `weights: broadcast` (gloo here),
  beside `weights: folder` (in memory).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases.rollouts import prepare  # noqa: E402
from cases.trainers import arguments  # noqa: E402
from measure import in_child  # noqa: E402
from rlvr import PROMPTS, begin, problems_of  # noqa: E402

SERVER = {"name": "vllm", "dtype": "float32", "device_memory": 0.05}
CASES = {  # what differs: ours, the peer
    "one ahead": ({"rollouts_ahead": 1}, {"rollouts_ahead": 0}),
    "broadcast": ({"weights": "broadcast"}, {"weights": "folder"}),
}


def train(folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Mean seconds of an update and of its parts, without the first."""
    model, tokenizer, rows, reward, config = begin(folder, 1, sampled=True)
    from transformers import TrainerCallback

    from posttrain import RLVRConfig, RLVRTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    ahead = settings.pop("rollouts_ahead", 0)
    config |= {"generation": {**SERVER, **settings}, "rollouts_ahead": ahead}
    trainer = RLVRTrainer(
        model,
        reward,
        RLVRConfig(**config, max_tokens_per_device=4096),
        train_dataset=problems_of(rows),
        processing_class=tokenizer,
    )
    trainer.add_callback(Clock())
    trainer.train()
    logs = [row for row in trainer.state.log_history if "seconds/train" in row][1:]
    parts = {}
    for name in ("sync", "generate", "train"):
        found = [row[f"seconds/{name}"] for row in logs if f"seconds/{name}" in row]
        parts[name] = sum(found) / len(found) if found else None
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {"seconds": seconds, "completion_length": logs[-1].get("completion_length"), **parts}


def run(case: str, groups: int) -> dict[str, Any]:
    sides = []
    for settings in CASES[case]:
        with tempfile.TemporaryDirectory() as folder:
            in_child(prepare, folder, groups, False, True)
            sides.append(in_child(train, folder, settings))
    (mine, seconds, peak), (theirs, peer_seconds, peer_peak) = sides
    if case == "broadcast":
        seconds, peer_seconds = mine["sync"], theirs["sync"]
    return {
        "bench": "served",
        "case": case,
        "ours": 60 / seconds,
        "peer": 60 / peer_seconds,
        "peer_name": ", ".join(f"{k}: {v}" for k, v in CASES[case][1].items()),
        "unit": "pushes/min" if case == "broadcast" else "updates/min",
        "ratio": peer_seconds / seconds,
        "ours_peak_mb": peak,
        "peer_peak_mb": peer_peak,
        "ours_seconds": mine,
        "peer_seconds": theirs,
    }


def main() -> None:
    from posttrain.errors import ServerError
    from posttrain.generation.vllm.launch import vllm_python

    args = arguments("served")
    try:
        vllm_python()
    except ServerError as error:
        sys.stderr.write(f"served is left out: {error}\n")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    for case in args.case or CASES:
        results.append(run(case, PROMPTS * (4 if args.quick else 10)))
        found = results[-1]
        sys.stderr.write(
            f"served, {case}: {found['ours']:.1f} {found['unit']} against {found['peer']:.1f}:"
            f" {found['ratio']:.2f}x\n"
        )
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
