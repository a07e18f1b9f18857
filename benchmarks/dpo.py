"""Direct preference optimisation: pairs per second, ours beside TRL and a plain loop.

    python benchmarks/dpo.py [--quick] [--threads N] [--case NAME ...] --json OUT

- `TRL default`: its `DPOTrainer` as it comes: padded, activation checkpointing, the reference
  asked in every step. Our time includes what our reference costs too.
- `TRL precomputed`: the same with the reference's log-probs made beforehand; that is timed on
  neither side.
- `plain`: a padded transformers loop, all logits made, the reference in every step.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases.trainers import BATCH, LENGTH, compare, settings, start, timed  # noqa: E402

BETA = 0.1


def ours(folder: str, threads: int) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads)
    from posttrain import DPOConfig, DPOTrainer

    config = DPOConfig(**settings(folder, max_tokens_per_device=2 * LENGTH, beta=BETA))
    return timed(DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer))


def trl(folder: str, threads: int, **options: Any) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads)
    from trl import DPOConfig, DPOTrainer

    DPOTrainer._prepare_dataset = lambda self, dataset, *_: dataset  # they are tokens already
    config = DPOConfig(**settings(folder, beta=BETA, **options))
    return timed(DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer))


def trl_precomputed(folder: str, threads: int) -> dict[str, Any]:
    return trl(folder, threads, precompute_ref_log_probs=True)


def plain(folder: str, threads: int) -> dict[str, Any]:
    model, _, rows = start(folder, threads)
    import torch
    from torch.nn.functional import logsigmoid
    from torch.nn.utils.rnn import pad_sequence

    reference = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    order = torch.randperm(len(rows)).tolist()

    def logps(policy: Any, ids: Any, mask: Any, answer: Any) -> Any:
        logits = policy(ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        of = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return (of * answer[:, 1:]).sum(1)

    def epoch() -> None:
        for i in range(0, len(order), BATCH):
            batch = [rows[j] for j in order[i : i + BATCH]]
            sides = [
                (row["prompt_ids"], row[s]) for s in ("chosen_ids", "rejected_ids") for row in batch
            ]
            ids = pad_sequence([torch.tensor(p + a) for p, a in sides], batch_first=True)
            mask = pad_sequence([torch.ones(len(p) + len(a)) for p, a in sides], batch_first=True)
            answer = [torch.tensor([0.0] * len(p) + [1.0] * len(a)) for p, a in sides]
            inputs = (ids, mask, pad_sequence(answer, batch_first=True))
            with torch.no_grad():
                before = logps(reference, *inputs)
            gain = logps(model, *inputs) - before
            chosen, rejected = gain.chunk(2)
            (-logsigmoid(BETA * (chosen - rejected))).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    model.train()
    return timed(epoch)


PEERS = {
    "TRL default": ("trl DPOTrainer, defaults", trl),
    "TRL precomputed": ("trl DPOTrainer, precompute_ref_log_probs", trl_precomputed),
    "plain": ("transformers, padded", plain),
}

if __name__ == "__main__":
    compare(
        "dpo",
        "preference",
        "pairs/s",
        ours,
        PEERS,
        without_reference=("TRL precomputed",),
        head=True,
        passes=4,
    )
