"""What the trainer benchmarks share: rows, model, clock, and the rows of their table.

Both sides of a case get the same tokenised rows, the same freshly drawn model, one epoch, and as
many threads. A side is timed from the start of its training to the end, in a process of its own,
after one forward and backward pass that nobody counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases.preparation import DATA, ROOT, conversations

LENGTH = 2048
VOCABULARY = 32_000
MODEL = {
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": True,
}
BATCH = 8  # rows, or pairs, per optimizer step
Side = Callable[[str, int], dict[str, Any]]


PREFERENCES = (  # all pairs that are at hand to train on: long answers, dialogues, one-line tasks
    "ultrafeedback/train_1000.jsonl.gz",
    "dpo_en_demo/dpo_en_demo.jsonl.gz",
    "llms_from_scratch/instruction-data-with-preference.jsonl.gz",
)


def pairs() -> list[dict[str, Any]]:
    """Real preference pairs of any shape; a few tokens to some two thousand each."""
    rows = []
    for name in PREFERENCES:
        with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
            rows += [pair(json.loads(line)) for line in file]
    return rows


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """One pair as prompt, chosen and rejected."""
    if "instruction" in row:
        asked = "\n\n".join(row[name] for name in ("instruction", "input") if row[name])
        return {"prompt": asked, "chosen": row["chosen"], "rejected": row["rejected"]}
    if "conversations" in row:
        roles = {"human": "user", "gpt": "assistant", "system": "system"}
        turns = [
            {"role": roles[t["from"]], "content": t["value"]}
            for t in (*row["conversations"], row["chosen"], row["rejected"])
        ]
        return {"prompt": turns[:-2], "chosen": [turns[-2]], "rejected": [turns[-1]]}
    return {name: row[name] for name in ("prompt", "chosen", "rejected")}


def prepare(folder: str, kind: str, count: int) -> dict[str, Any]:
    """Write `count` tokenised rows, the tokenizer and the model; returns what is in the rows."""
    sys.path.insert(0, str(ROOT))
    from datasets import Dataset

    from posttrain.errors import DataError
    from posttrain.formats import to_row
    from posttrain.scratch import new_model, new_tokenizer
    from posttrain.tokens import Tokenizer, tokenize

    rows = conversations()
    texts = [m["content"] for row in rows for m in row["messages"]]
    tokenizer = new_tokenizer(texts, VOCABULARY, "tulu")
    new_model(MODEL, tokenizer, Path(folder), seed=0)
    preferences = pairs()
    rows += [{"prompt": row["prompt"], "completion": row["chosen"]} for row in preferences[:999]]
    if kind == "preference":
        rows = preferences
    random.Random(0).shuffle(rows)
    read = []
    for row in rows[: 2 * count]:
        with contextlib.suppress(DataError):  # an empty answer
            read.append({**to_row(kind, row), "source": "data"})
    tokens = tokenize(read, kind, Tokenizer(tokenizer, LENGTH, "drop")).rows
    tokens = tokens.select(range(count))
    Dataset.from_list(list(tokens)).save_to_disk(f"{folder}/rows")
    return facts(kind, tokens)


def facts(kind: str, rows: Any) -> dict[str, Any]:
    """Counts that say what the rows are like and how much work they are for a model."""
    if kind == "preference":
        lengths = [
            len(row["prompt_ids"]) + len(row[side])
            for row in rows
            for side in ("chosen_ids", "rejected_ids")
        ]
        alone = sum(len(row["prompt_ids"]) for row in rows)
        computed = sum(lengths) - alone  # a shared prompt is computed once
        trained = computed - alone
    else:
        lengths = [len(row["input_ids"]) for row in rows]
        computed = sum(lengths)
        trained = sum(label != -100 for row in rows for label in row["labels"])
    return {
        "rows": len(rows),
        "tokens": computed,
        "trained_tokens": trained,
        "median_length": statistics.median(lengths),
        "longest": max(lengths),
        "squares": sum(n * n for n in lengths),
    }


def gflops_needed(kind: dict[str, Any], head: bool, passes: float = 3) -> float:
    """GFLOPs of one epoch: every token through the layers, trained ones through the head.

    Args:
        kind: the facts of the rows.
        head: whether there is a language-model head.
        passes: forward passes' worth of work: 3 for forward and backward, one more for a reference.
    """
    width, inner, layers = (
        MODEL["hidden_size"],
        MODEL["intermediate_size"],
        MODEL["num_hidden_layers"],
    )
    keys = width * MODEL["num_key_value_heads"] // MODEL["num_attention_heads"]
    linear = layers * (2 * width * width + 2 * width * keys + 3 * width * inner)
    attention = layers * 2 * width * kind["squares"]  # two products over half a square each
    flops = 2 * linear * kind["tokens"] + attention
    if head:
        flops += 2 * width * VOCABULARY * kind["trained_tokens"]
    return passes * flops / 1e9


def rate(threads: int) -> dict[str, float]:
    """GFLOP/s of a large fp32 product of matrices, the best of ten."""
    import torch

    torch.set_num_threads(threads)
    a, b, best = torch.randn(2048, 2048), torch.randn(2048, 2048), 0.0
    for _ in range(10):
        begin = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin) / 1e9)
    return {"gflops": best}


def start(folder: str, threads: int, head: str = "lm") -> tuple[Any, Any, Any]:
    """The model, the tokenizer and the rows, warm and with so many threads."""
    sys.path.insert(0, str(ROOT))
    import torch
    import transformers
    from datasets import disable_progress_bars, load_from_disk

    torch.set_num_threads(threads)
    disable_progress_bars()
    torch.manual_seed(0)
    kinds = {"lm": "CausalLM", "token": "TokenClassification", "row": "SequenceClassification"}
    kind = getattr(transformers, f"AutoModelFor{kinds[head]}")
    options = {} if head == "lm" else {"num_labels": 1}
    model = kind.from_pretrained(folder, dtype=torch.float32, **options)
    model(torch.arange(2, 258)[None]).logits.sum().backward()
    model.zero_grad()
    return (
        model,
        transformers.AutoTokenizer.from_pretrained(folder),
        load_from_disk(f"{folder}/rows"),
    )


def settings(folder: str, **more: Any) -> dict[str, Any]:
    """What every trainer is told."""
    return {
        "output_dir": f"{folder}/out-{os.getpid()}",
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-4,
        "max_length": LENGTH,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 10,
        **more,
    }


def clock() -> Any:
    """A callback that notes when the first step begins: the reference is known by then."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        begun: tuple[float, float] | None = None

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = self.begun or (time.perf_counter(), time.process_time())

    return Clock()


def timed(work: Any) -> dict[str, Any]:
    """Seconds on the wall and of the processor of a trainer's `train`, or of a call.

    `train_seconds` leaves out what comes before the first step.
    """
    first = clock()
    if hasattr(work, "add_callback"):
        work.add_callback(first)
        work = work.train
    begin = (time.perf_counter(), time.process_time())
    work()
    end = (time.perf_counter(), time.process_time())
    begun = first.begun or begin
    names = ("seconds", "cpu_seconds", "train_seconds", "train_cpu_seconds")
    starts = (*begin, *begun)
    return {name: end[i % 2] - starts[i] for i, name in enumerate(names)}


def compare(
    bench: str,
    kind: str,
    unit: str,
    ours: Side,
    peers: dict[str, tuple[str, Side]],
    without_reference: tuple[str, ...] = (),
    **work: Any,
) -> None:
    """Run ours and every peer, and write the table.

    Args:
        bench: the benchmark's name.
        kind: kind of row.
        unit: `trained tokens/s` or `pairs/s`.
        ours: our side.
        peers: case -> name of the peer and its side.
        without_reference: cases in which neither side's reference log-probs are timed.
        work: options of `gflops_needed`.
    """
    from measure import in_child

    args = arguments(bench)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POSTTRAIN_CACHE"] = f"{folder}/cache"  # nothing was computed before
        quick, full = (24, 160) if kind == "conversation" else (16, 64)
        count = quick if args.quick else full
        rows, _, _ = in_child(prepare, folder, kind, count)
        speed, _, _ = in_child(rate, args.threads)
        items = rows["trained_tokens"] if unit.startswith("trained") else rows["rows"]
        sys.stderr.write(f"{rows}, matmul {speed['gflops']:.0f} GFLOP/s\n")
        mine, seconds, peak = in_child(ours, folder, args.threads)
        for case, (name, side) in peers.items():
            if args.case and case not in args.case:
                continue
            theirs, peer_seconds, peer_peak = in_child(side, folder, args.threads)
            bare = case in without_reference
            peer_seconds = theirs["train_seconds"] if bare else peer_seconds
            took, cpu = (
                (mine["train_seconds"], mine["train_cpu_seconds"])
                if bare
                else (seconds, mine["cpu_seconds"])
            )
            needed = gflops_needed(rows, **{**work, **({"passes": 3} if bare else {})})
            result = {
                "bench": bench,
                "case": case,
                "ours": items / took,
                "peer": items / peer_seconds,
                "peer_name": name,
                "unit": unit,
                "ratio": peer_seconds / took,
                "ours_peak_mb": peak,
                "peer_peak_mb": peer_peak,
                "cpu_ratio": theirs["train_cpu_seconds" if bare else "cpu_seconds"] / cpu,
                "threads": args.threads,
                "matmul_gflops": speed["gflops"],
                "ours_share_of_matmul": needed / took / speed["gflops"],
                "peer_share_of_matmul": needed / peer_seconds / speed["gflops"],
                **{name: rows[name] for name in ("rows", "tokens", "trained_tokens")},
            }
            results.append(result)
            say(result)
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def say(result: dict[str, Any]) -> None:
    sys.stderr.write(
        f"{result['bench']}, {result['case']}: {result['ours']:,.1f} {result['unit']} against"
        f" {result['peer']:,.1f}: {result['ratio']:.2f}x ({result['cpu_ratio']:.2f}x of processor"
        f" time); peak {result['ours_peak_mb']:,.0f} against {result['peer_peak_mb']:,.0f} MB;"
        f" {result['ours_share_of_matmul']:.0%} against {result['peer_share_of_matmul']:.0%}"
        " of the matmul rate\n"
    )


def arguments(bench: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"{bench}: ours beside others, in one run")
    parser.add_argument("--quick", action="store_true", help="a few rows: some minutes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", help="only this one")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    return parser.parse_args()
