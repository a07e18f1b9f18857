"""The language-model head alone, forward and backward: ours, TRL's kernel, and whole logits.

    python benchmarks/head.py [--quick] [--threads N] [--device cuda] --json OUT

`sum` is a loss whose gradient is known beforehand (SFT), `pair` one of which it is known as soon as
a pair's log-probs are (DPO, RLVR; here 128 positions each), `unknown` one of which it never is, so
that logits are made twice, `frozen` any loss under adapters. Memory is what a side adds to the
inputs and their gradients.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from measure import in_child  # noqa: E402

CASES = {  # when the gradient is known, and whether the head is frozen
    "sum": ("before", False),
    "pair": ("later", False),
    "unknown": ("never", False),
    "frozen": ("never", True),
}
PAIR = 128  # positions


def sides() -> dict[str, Callable[..., Any]]:
    """`(hidden, weight, targets, weights) -> log-probs`."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    from posttrain.head.chunks import chunked_answer, whole_answer

    return {
        "ours": lambda h, w, t, g: chunked_answer([(h, w)], None, t, g).logps,
        "trl": lambda h, w, t, g: ChunkedLogProbFunction.apply(
            h, w, None, t, 1.0, 32768, None, 1.0, ("log_probs",)
        )[0],
        "plain": lambda h, w, t, g: whole_answer(h @ w.t(), t).logps,
    }


def told(when: str, weights: Any) -> Any:
    """What the head is told of the gradient."""
    from posttrain.head.chunks import Later

    if when == "later":
        ends = list(range(PAIR, len(weights) + 1, PAIR))
        return Later(ends, lambda answer, block: weights[block])
    return weights if when == "before" else None


def side(
    name: str, case: str, shape: list[int], device: str, threads: int, repeats: int
) -> dict[str, float]:
    """Seconds of one forward and backward pass, the least of several, and of the processor."""
    import torch

    torch.set_num_threads(threads)
    when, frozen = CASES[case]
    tokens, width, vocabulary = shape
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    make = {"device": device, "dtype": dtype}
    hidden = torch.randn(tokens, width, **make).requires_grad_()
    weight = (torch.randn(vocabulary, width, **make) / width**0.5).requires_grad_(not frozen)
    targets = torch.randint(0, vocabulary, (tokens,), device=device)
    weights = torch.ones(tokens, device=device)
    best = {"seconds": float("inf"), "cpu_seconds": float("inf")}
    for _ in range(repeats + 1):  # the first warms up
        hidden.grad = weight.grad = None
        begin, cpu = time.perf_counter(), time.process_time()
        logps = sides()[name](hidden, weight, targets, told(when, weights))
        (logps * weights).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        took = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
        best = {key: min(best[key], took[key]) for key in best}
    if device == "cuda":
        best["cuda_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer positions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    args = parser.parse_args()
    shape = [8192, 2048, 128_256] if args.device == "cuda" else [2048, 384, 32_000]
    shape[0] //= 4 if args.quick else 1
    results = []
    for case in CASES:
        found = {}
        for name in ("ours", "trl", "plain"):
            options = (case, shape, args.device, args.threads, 2 if args.quick else 5)
            result, seconds, peak = in_child(side, name, *options)
            found[name] = (seconds, result.get("cuda_mb", peak), result["cpu_seconds"])
        for peer in ("trl", "plain"):
            results.append(
                {
                    "bench": "head",
                    "case": f"{case}, {peer}",
                    "ours": shape[0] / found["ours"][0],
                    "peer": shape[0] / found[peer][0],
                    "peer_name": {"trl": "trl ChunkedLogProbFunction", "plain": "whole logits"}[
                        peer
                    ],
                    "unit": "positions/s",
                    "ratio": found[peer][0] / found["ours"][0],
                    "ours_peak_mb": found["ours"][1],
                    "peer_peak_mb": found[peer][1],
                    "cpu_ratio": found[peer][2] / found["ours"][2],
                }
            )
            sys.stderr.write(f"{results[-1]}\n")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
