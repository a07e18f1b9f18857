"""Sampling in process: our engine beside `model.generate` and transformers' continuous batching.

    python benchmarks/generate.py [--quick] [--threads N] [--case NAME] --json OUT

64 prompts of 20 to 200 tokens, four answers each, a Llama of 2.6 million random parameters in fp32.
One token in a hundred of the vocabulary ends an answer, so that lengths are spread as chance has
it, up to 256. A side counts the tokens up to the one that ends the answer, in the seconds it takes.
`model.generate` is given batches of several sizes, prompts of like length together, and its best is
taken; transformers' continuous batching, the slowest, gets an eighth of the prompts. vLLM runs as
our server does, in its own environment (`make vllm-env`; left out where there is none), layer by
layer and compiled, and the better of the two is taken. Its start is not counted, nor its first
answers; HTTP and JSON are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
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


def group_seconds(group: int) -> float:
    """Seconds of the processor that a process group has used so far."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def vllm(eager: bool, given: list[list[int]], longest: int, threads: int) -> dict[str, float]:
    """The same over a vLLM server, whose processor time counts with the client's."""
    from posttrain.generation.base import Sampling
    from posttrain.generation.vllm.engine import VLLMEngine
    from posttrain.generation.vllm.settings import VLLMSettings

    settings = VLLMSettings(dtype="float32", device_memory=0.05, eager=eager)
    with tempfile.TemporaryDirectory() as folder:
        load(threads).save_pretrained(folder)
        with VLLMEngine.start(folder, STOPS, settings, Path(folder) / "vllm.log") as server:
            assert server.server is not None and server.server.process is not None
            group = server.server.process.pid
            server(given[:2], Sampling(4), num_generations=ANSWERS)

            def work() -> int:
                done = server(given, Sampling(longest), num_generations=ANSWERS)
                return sum(len(c.ids) for group in done for c in group)

            before = group_seconds(group)
            tokens, seconds, cpu = timed(work)
            cpu += group_seconds(group) - before
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu}


SIDES = {"ours": engine, "generate": generate, "continuous batching": continuous}
SERVERS = {"vllm": True, "vllm compiled": False}
PEERS = {
    "generate": ("transformers model.generate", ["generate"]),
    "continuous batching": ("transformers generate_batch", ["continuous batching"]),
    "vllm": ("vLLM server on the CPU", list(SERVERS)),
}


def side(name: str, count: int, longest: int, size: int, threads: int) -> dict[str, float]:
    """One side on so many prompts, after a little of the same that nobody counts."""
    if name in SERVERS:
        return vllm(SERVERS[name], prompts(count), longest, threads)
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


def has_vllm() -> bool:
    """Whether there is an environment with vLLM; says so if not."""
    from posttrain.errors import ServerError
    from posttrain.generation.vllm.launch import vllm_python

    try:
        return bool(vllm_python())
    except ServerError as error:
        sys.stderr.write(f"vllm: left out: {error}\n")
        return False


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
        peer_name, sides = PEERS[case]
        if case == "vllm" and not has_vllm():
            continue
        many = count // 8 if case == "continuous batching" else count
        sizes = [many] if args.quick or case != "generate" else [4, 16, many]
        ours = best("ours", many, longest, [many], args.threads)
        peers = [best(side, many, longest, sizes, args.threads) for side in sides]
        peer = max(peers, key=lambda one: float(one["rate"]))
        results.append(
            {
                "bench": "generate",
                "case": case,
                "ours": ours["rate"],
                "peer": peer["rate"],
                "peer_name": peer_name,
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
