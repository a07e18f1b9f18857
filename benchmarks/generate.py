"""Sampling in process: our engine beside `model.generate` and transformers' continuous batching.

    python benchmarks/generate.py [--quick] [--threads N] [--case NAME] --json OUT

64 prompts of 20 to 200 tokens, four answers each, a Llama of 2.6 million random parameters in fp32.
One token in a hundred of the vocabulary ends an answer, so that lengths are spread as chance has
it, up to 256. A side counts the tokens up to the one that ends the answer, in the seconds it takes.
`model.generate` is given batches of several sizes, prompts of like length together, and its best is
taken; transformers' continuous batching, the slowest, gets an eighth of the prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from measure import in_child  # noqa: E402

VOCABULARY = 4096
MODEL = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
STOPS = list(range(1, VOCABULARY, 100))
ANSWERS = 4
Counted = tuple[int, float, float]  # tokens, seconds, seconds of the processor


def prompts(count: int) -> list[list[int]]:
    """Random tokens, as many short prompts as long ones on a logarithmic scale."""
    draw = random.Random(0)
    lengths = [int(20 * 10 ** draw.random()) for _ in range(count)]
    return [[draw.randrange(2, VOCABULARY) for _ in range(n)] for n in lengths]


def load(threads: int) -> Any:
    """The model, freshly drawn."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    fields = {k: v for k, v in MODEL.items() if k != "model_type"}
    config = AutoConfig.for_model(MODEL["model_type"], **fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def timed(work: Callable[[], int]) -> Counted:
    """Tokens that `work` makes, and what it takes."""
    begin, cpu = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens, time.perf_counter() - begin, time.process_time() - cpu


def up_to_end(ids: list[int]) -> int:
    """Tokens of an answer, the one that ends it included."""
    return next((i + 1 for i, t in enumerate(ids) if t in set(STOPS)), len(ids))


def engine(model: Any, given: list[list[int]], longest: int, size: int) -> int:
    from posttrain.generation.local import Sampling, generate_ids

    options = {"num_generations": ANSWERS, "batch_size": size}
    done = generate_ids(model, given, Sampling(longest), STOPS, **options)
    return sum(len(c.ids) for group in done for c in group)


def generate(model: Any, given: list[list[int]], longest: int, size: int) -> int:
    import torch

    given, tokens = sorted(given, key=len), 0
    for part in (given[i : i + size] for i in range(0, len(given), size)):
        width = max(map(len, part))
        out = model.generate(
            torch.tensor([[0] * (width - len(p)) + p for p in part]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part]),
            max_new_tokens=longest,
            do_sample=True,
            top_k=0,
            num_return_sequences=ANSWERS,
            eos_token_id=STOPS,
            pad_token_id=0,
        )
        tokens += sum(up_to_end(row) for row in out[:, width:].tolist())
    return tokens


def continuous(model: Any, given: list[list[int]], longest: int, size: int) -> int:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model.set_attn_implementation("paged|sdpa")
    config = GenerationConfig(
        max_new_tokens=longest, do_sample=True, top_k=0, eos_token_id=STOPS, pad_token_id=0
    )
    room = ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=1024)
    rows = [p for p in given for _ in range(ANSWERS)]
    done = model.generate_batch(
        rows, generation_config=config, continuous_batching_config=room, progress_bar=False
    )
    return sum(up_to_end(list(out.generated_tokens)) for out in done.values())


SIDES = {"ours": engine, "generate": generate, "continuous batching": continuous}
PEERS = {
    "generate": "transformers model.generate",
    "continuous batching": "transformers generate_batch",
}


def side(name: str, count: int, longest: int, size: int, threads: int) -> dict[str, float]:
    """One side on so many prompts, after a little of the same that nobody counts."""
    model, given, work = load(threads), prompts(count), SIDES[name]
    work(model, given[:2], 4, size)
    tokens, seconds, cpu = timed(lambda: work(model, given, longest, size))
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu}


def best(name: str, count: int, longest: int, sizes: list[int], threads: int) -> dict[str, Any]:
    """The size with the most tokens per second, and its peak of memory."""
    found = []
    for size in sizes:
        result, seconds, peak = in_child(side, name, count, longest, size, threads)
        rate, cpu_rate = result["tokens"] / seconds, result["tokens"] / result["cpu_seconds"]
        found.append({"rate": rate, "cpu_rate": cpu_rate, "peak": peak, "size": size, **result})
    return max(found, key=lambda one: float(one["rate"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the prompts, once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", choices=tuple(PEERS))
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    count, longest = (16, 128) if args.quick else (64, 256)
    results = []
    for case in args.case or PEERS:
        many = count if case == "generate" else count // 8
        sizes = [many] if args.quick or case != "generate" else [4, 16, many]
        ours = best("ours", many, longest, [many], args.threads)
        peer = best(case, many, longest, sizes, args.threads)
        results.append(
            {
                "bench": "generate",
                "case": case,
                "ours": ours["rate"],
                "peer": peer["rate"],
                "peer_name": PEERS[case],
                "unit": "tokens/s",
                "ratio": ours["rate"] / peer["rate"],
                "ours_peak_mb": ours["peak"],
                "peer_peak_mb": peer["peak"],
                "cpu_ratio": ours["cpu_rate"] / peer["cpu_rate"],
                "threads": args.threads,
                "prompts": many,
                "ours_tokens": ours["tokens"],
                "peer_tokens": peer["tokens"],
                "peer_batch": peer["size"] * ANSWERS,
            }
        )
        sys.stderr.write(f"{results[-1]}\n")
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
