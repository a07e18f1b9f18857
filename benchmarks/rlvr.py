"""GRPO: updates per minute, ours beside TRL's GRPOTrainer.

    python benchmarks/rlvr.py [--quick] [--threads N] [--case NAME ...] --json OUT

An update is 8 GSM8K prompts with 8 completions each. Where completions are planted, both sides
get the same ones and the same rewards, and all that follows is timed: rewards, advantages,
log-probs, loss, gradient, step.

- `training phase`: planted; in 40% of the groups all rewards are equal, as in practice.
- `training phase, no equal groups`: the same with rewards that differ in every group.
- `long prompts`, `long prompts, no equal groups`: prompts of 700 tokens, as with examples.
- `whole step`: completions are sampled, up to 256 tokens; one token in a hundred ends an answer.
- `whole step, continuous batching`: the same, TRL with transformers' continuous batching.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases.rollouts import GROUP, planted, prepare  # noqa: E402
from cases.trainers import (  # noqa: E402
    BATCH,
    LENGTH,
    ROOT,
    arguments,
    gflops_needed,
    rate,
    say,
    timed,
)

PROMPTS = 8  # per update
SAMPLED = 256  # tokens at most
EVERY = 100  # one token in so many ends a sampled answer


def begin(folder: str, threads: int, sampled: bool) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Model, tokenizer, rows, the reward function and the settings of both trainers."""
    sys.path.insert(0, str(ROOT))
    import torch
    from datasets import disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    disable_progress_bars()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model(torch.arange(2, 258)[None]).logits.sum().backward()
    model.zero_grad()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if sampled:
        ends = list(range(0, len(tokenizer), EVERY))
        model.generation_config.eos_token_id = [*ends, tokenizer.eos_token_id]
    rows, rewards = planted(folder)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        if sampled:  # as good as a coin, and as cheap
            return [float(sum(ids) % 2) for ids in completion_ids]
        return [rewards[tuple(ids)] for ids in completion_ids]

    config = {
        "output_dir": f"{folder}/out-{os.getpid()}",
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": PROMPTS * GROUP // BATCH,
        "num_generations": GROUP,
        "max_completion_length": SAMPLED if sampled else 1024,
        "learning_rate": 1e-6,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    return model, tokenizer, rows, reward, config


def result(trainer: Any) -> dict[str, Any]:
    """The times, and the norm of the first update's gradient."""
    times = timed(trainer)
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    return {**times, "grad_norm": float(norms[0])}


def problems_of(rows: list[dict[str, Any]]) -> Any:
    """The prompts as our trainer takes them."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "prompt_ids": row["ids"],
                "prompt": json.dumps([{"role": "user", "content": row["prompt"]}]),
                "ground_truth": "",
                "verifier": "string_match",
                "source": "gsm8k",
            }
            for row in rows
        ]
    )


def ours(folder: str, threads: int, sampled: bool) -> dict[str, Any]:
    model, tokenizer, rows, reward, config = begin(folder, threads, sampled)
    from posttrain import RLVRConfig, RLVRTrainer
    from posttrain.generation.base import Completion

    class Planted(RLVRTrainer):  # type: ignore[misc]
        def complete(self, prompts: Any, *rest: Any) -> Any:
            known = {tuple(row["ids"]): row["done"] for row in rows}
            return [[Completion(ids, True) for ids in known[tuple(p)]] for p in prompts]

    trainer = (RLVRTrainer if sampled else Planted)(
        model,
        reward,
        RLVRConfig(**config, max_tokens_per_device=2 * LENGTH),
        train_dataset=problems_of(rows),
        processing_class=tokenizer,
    )
    return result(trainer)


def trl(folder: str, threads: int, sampled: bool, **options: Any) -> dict[str, Any]:
    model, tokenizer, rows, reward, config = begin(folder, threads, sampled)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    known = {tuple(row["ids"]): row["done"] for row in rows}

    class Planted(GRPOTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            """A prompt comes as often as it has completions, one after another."""
            return [known[tuple(p)][i % GROUP] for i, p in enumerate(prompt_ids)], None

    trainer = (GRPOTrainer if sampled else Planted)(
        model,
        reward,
        GRPOConfig(**config, shuffle_dataset=False, **options),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=tokenizer,
    )
    return result(trainer)


def trl_continuous(folder: str, threads: int, sampled: bool) -> dict[str, Any]:
    return trl(folder, threads, sampled, use_transformers_continuous_batching=True)


CASES = {  # long prompts, no equal groups, sampled, the peer
    "training phase": (False, False, False, trl),
    "training phase, no equal groups": (False, True, False, trl),
    "long prompts": (True, False, False, trl),
    "long prompts, no equal groups": (True, True, False, trl),
    "whole step": (False, False, True, trl),
    "whole step, continuous batching": (False, False, True, trl_continuous),
}


def run(case: str, groups: int, threads: int, gflops: float) -> dict[str, Any]:
    """One case: both sides, each in a process of its own."""
    from measure import in_child

    long, unequal, sampled, peer = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        facts, _, _ = in_child(prepare, folder, groups, long, unequal)
        mine, seconds, peak = in_child(ours, folder, threads, sampled)
        theirs, peer_seconds, peer_peak = in_child(peer, folder, threads, sampled)
    updates = groups / PROMPTS
    out = {
        "bench": "rlvr",
        "case": case,
        "ours": 60 * updates / seconds,
        "peer": 60 * updates / peer_seconds,
        "peer_name": "trl GRPOTrainer" + (", continuous batching" if "contin" in case else ""),
        "unit": "updates/min",
        "ratio": peer_seconds / seconds,
        "ours_peak_mb": peak,
        "peer_peak_mb": peer_peak,
        "cpu_ratio": theirs["cpu_seconds"] / mine["cpu_seconds"],
        "threads": threads,
        "matmul_gflops": gflops,
        "grad_norm": mine["grad_norm"],
        "peer_grad_norm": theirs["grad_norm"],
        "ours_share_of_matmul": 0.0,
        "peer_share_of_matmul": 0.0,
        **facts,
    }
    if not sampled:
        useful = {name: facts[f"useful_{name}"] for name in ("tokens", "trained_tokens", "squares")}
        needed = gflops_needed(useful, head=True)
        out["ours_share_of_matmul"] = needed / seconds / gflops
        out["peer_share_of_matmul"] = needed / peer_seconds / gflops
    return out


def main() -> None:
    from measure import in_child

    args = arguments("rlvr")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    speed, _, _ = in_child(rate, args.threads)
    results = []
    for case in args.case or CASES:
        groups = PROMPTS * (1 if args.quick else 4)
        results.append(run(case, groups, args.threads, speed["gflops"]))
        say(results[-1])
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
