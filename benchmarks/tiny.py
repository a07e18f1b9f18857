"""RL on the tiny stack: seconds until a held-out score, ours beside TRL's GRPOTrainer.

    python benchmarks/tiny.py [--quick] [--threads N] [--case NAME ...] [--run DIR ...] --json OUT

All sides start from the DPO model of a finished run of recipes/tiny.yaml (`--run`; without one it
is made first, some minutes) and train on its RLVR problems, with the same verifiers as rewards. The
score is that of the task `tiny`, 400 held-out problems answered greedily: every few steps the
policy is copied aside and scored, which is not timed. A side has arrived at the first score that is
`--gain` points above the start's. Given several runs, of several seeds, times are their mean.

- `GRPO to the same score`: the rlvr stage of recipes/tiny.yaml.
- `PPO to the same score`: that of recipes/tiny_ppo.yaml, its value model from the reward model.

The peer of both is TRL's GRPOTrainer with the batch, learning rate, schedule, lengths, clip and
reduction of recipes/tiny.yaml, and without activation checkpointing, which is its faster setting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from measure import in_child  # noqa: E402

CASES = {"GRPO to the same score": "tiny.yaml", "PPO to the same score": "tiny_ppo.yaml"}
EVERY = 5  # steps between two scores
DATA = "5-rlvr/data"


def make(folder: str) -> dict[str, Any]:
    """A run of recipes/tiny.yaml."""
    from posttrain import run

    run(ROOT / "recipes" / "tiny.yaml", run_dir=folder)
    return {}


def start_of(run: str) -> float:
    """The score that every side starts from."""
    scores = json.loads((Path(run) / "evals" / "dpo.json").read_text(encoding="utf-8"))["scores"]
    return float(scores["tiny"]["score"])


def recipe_of(run: str, name: str) -> tuple[Any, Any]:
    """A recipe with the run's seed, and its rlvr stage with the run's models."""
    from posttrain.pipeline.check import named_models
    from posttrain.pipeline.plan import with_paths
    from posttrain.recipe import load_recipe, stage_name

    seed = load_recipe(Path(run) / "recipe.resolved.yaml").seed
    recipe = load_recipe(ROOT / "recipes" / name, [f"seed={seed}"])
    numbers = {stage_name(stage): i for i, stage in enumerate(recipe.stages, 1)}
    stage = recipe.stages[-1]
    paths = {model: f"{run}/{numbers[model]}-{model}/model" for model in named_models(stage)}
    return recipe, with_paths(stage, paths)


def used() -> float:
    """Seconds of the processor that this process and its children have used: workers verify."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            fields = path.read_text().rpartition(")")[2].split()
            if os.getpid() in (int(path.parent.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def watch(model: str, target: float, limit: float, threads: int) -> Any:
    """A callback that scores the policy now and then, and ends training at the target or the limit.

    Its clock starts when it is made and stands still while it scores.
    """
    import torch
    from transformers import TrainerCallback

    from posttrain.evals.run import evaluate, load, task_rows
    from posttrain.evals.tasks import get_task
    from posttrain.recipe import Task

    torch.set_num_threads(threads)
    judge, tokenizer = load(model)
    tasks = [(task := get_task("tiny"), task_rows(task, Task(name="tiny")))]

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.curve: list[tuple[int, float, float]] = []  # steps, seconds, score
            self.seconds = self.cpu = 0.0
            self.start()

        def start(self) -> None:
            self.begun, self.begun_cpu = time.perf_counter(), used()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step % EVERY and state.global_step != state.max_steps:
                return
            self.seconds += time.perf_counter() - self.begun
            self.cpu += used() - self.begun_cpu
            trained = given["model"].state_dict()
            policy = {k: v for k, v in trained.items() if not k.startswith("value_model.")}
            judge.load_state_dict(policy)
            with torch.random.fork_rng():
                found = evaluate(judge, tokenizer, tasks, batch_size=200, max_new_tokens=40)
            self.curve.append((state.global_step, self.seconds, found["tiny"].score))
            if self.curve[-1][2] >= target or self.seconds >= limit:
                control.should_training_stop = True
            self.start()

        def result(self) -> dict[str, Any]:
            steps, seconds, score = self.curve[-1]
            reached = score >= target
            found = {"steps": steps, "seconds": seconds, "cpu_seconds": self.cpu}
            return found | {"score": score, "reached": reached, "curve": self.curve}

    return Watch()


def ours(run: str, name: str, target: float, limit: float, threads: int) -> dict[str, Any]:
    """An rlvr stage as `posttrain run` trains it; loading the model is timed too."""
    from posttrain.pipeline import hardware
    from posttrain.pipeline.data import stage_rows
    from posttrain.pipeline.processes import processes
    from posttrain.pipeline.stage import train

    start, rows = f"{run}/3-dpo/model", stage_rows(Path(run) / DATA)
    recipe, stage = recipe_of(run, name)
    with processes(), tempfile.TemporaryDirectory() as out:
        clock = watch(start, target, limit, threads)
        machine = hardware.choose(None, ROOT / "recipes" / name)
        train(recipe, stage, start, rows, Path(out), machine, [clock])
    return clock.result()


def trl(run: str, name: str, target: float, limit: float, threads: int) -> dict[str, Any]:
    """TRL's GRPOTrainer with the settings of a recipe's GRPO stage."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from posttrain.pipeline.data import stage_rows
    from posttrain.verifiers import verify

    start, rows = f"{run}/3-dpo/model", list(stage_rows(Path(run) / DATA))
    recipe, stage = recipe_of(run, name)
    tokenizer = AutoTokenizer.from_pretrained(start)
    problems = [
        {"prompt": json.loads(r["prompt"]), "truth": r["ground_truth"], "verifier": r["verifier"]}
        for r in rows
    ]
    options = {"add_generation_prompt": True, "return_dict": True}
    ids = tokenizer.apply_chat_template(problems[0]["prompt"], **options)["input_ids"]
    assert list(ids) == rows[0]["prompt_ids"]  # the same template

    def reward(completions: Any, truth: Any, verifier: Any, **_: Any) -> list[float]:
        given = zip(verifier, completions, truth, strict=True)
        return [verify(name, said[-1]["content"], wanted).score for name, said, wanted in given]

    same = (
        "num_generations", "max_completion_length", "temperature", "learning_rate", "adam_beta1",
        "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "lr_scheduler_type",
        "warmup_steps", "max_steps", "logging_steps", "beta",
    )  # fmt: skip
    clock = watch(start, target, limit, threads)
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(start),
            reward,
            GRPOConfig(
                output_dir=out,
                per_device_train_batch_size=stage.batch_size,
                loss_type="dapo",  # a mean over the tokens of the batch: our `token_mean`
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                seed=recipe.seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **{key: getattr(stage, key) for key in same},
            ),
            train_dataset=Dataset.from_list(problems),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return clock.result()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def compare(case: str, sides: list[Any], peers: list[Any], facts: dict[str, Any]) -> dict[str, Any]:
    """One row: results of `in_child` of ours and of the peer, run by run."""
    seconds, theirs = mean([s[1] for s in sides]), mean([p[1] for p in peers])

    def cpu(some: list[Any]) -> float:
        return mean([found["cpu_seconds"] for found, _, _ in some])

    result = {
        "bench": "tiny",
        "case": case,
        "ours": seconds,
        "peer": theirs,
        "peer_name": "trl GRPOTrainer",
        "unit": f"s to +{facts['gain']:g} points",
        "ratio": theirs / seconds,
        "ours_peak_mb": max(s[2] for s in sides),
        "peer_peak_mb": max(p[2] for p in peers),
        "cpu_ratio": cpu(peers) / cpu(sides),
        **facts,
    }
    for name, some in (("ours", sides), ("peer", peers)):
        result[f"{name}_reached"] = all(found["reached"] for found, _, _ in some)
        result[f"{name}_runs"] = [found for found, _, _ in some]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="RL on the tiny stack, ours beside TRL's")
    parser.add_argument("--quick", action="store_true", help="at most three minutes a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one")
    parser.add_argument("--run", action="append", help="a finished run of recipes/tiny.yaml")
    parser.add_argument("--gain", type=float, default=10.0, help="points above the start's score")
    parser.add_argument("--limit", type=float, help="seconds that a side may train")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    limit = args.limit or (180.0 if args.quick else 720.0)
    with tempfile.TemporaryDirectory() as folder:
        if not args.run:
            args.run = [f"{folder}/run"]
            in_child(make, args.run[0])
        runs = [str(Path(run).resolve()) for run in args.run]
        targets = [start_of(run) + args.gain / 100 for run in runs]
        facts = {"gain": args.gain, "targets": targets, "limit": limit, "threads": args.threads}

        def each(side: Any, name: str) -> list[Any]:
            done = []
            for run, target in zip(runs, targets, strict=True):
                done.append(in_child(side, run, name, target, limit, args.threads))
                found = {key: value for key, value in done[-1][0].items() if key != "curve"}
                sys.stderr.write(f"{side.__name__}, {name}, {run}: {found}\n")
            return done

        peers = each(trl, CASES["GRPO to the same score"])
        results = []
        for case in args.case or CASES:
            results.append(compare(case, each(ours, CASES[case]), peers, facts))
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            row = results[-1]
            sys.stderr.write(
                f"{case}: {row['ours']:.0f} {row['unit']} against {row['peer']:.0f}:"
                f" {row['ratio']:.2f}x ({row['cpu_ratio']:.2f}x of processor time)\n"
            )


if __name__ == "__main__":
    main()
