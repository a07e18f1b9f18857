"""Reward models: pairs per second, ours beside TRL and a plain loop.

    python benchmarks/reward.py [--quick] [--threads N] [--case NAME ...] --json OUT

- `TRL`: its `RewardTrainer` as it comes: padded, with activation checkpointing.
- `TRL without checkpointing`: the same, faster and larger.
- `plain`: a padded transformers loop.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases.trainers import BATCH, LENGTH, compare, settings, start, timed  # noqa: E402


def ours(folder: str, threads: int) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads, "token")
    from posttrain import RewardConfig, RewardTrainer

    config = RewardConfig(**settings(folder, max_tokens_per_device=2 * LENGTH))
    return timed(RewardTrainer(model, config, train_dataset=rows, processing_class=tokenizer))


def whole(row: dict[str, Any]) -> dict[str, Any]:
    """Each side with its prompt, as TRL takes them."""
    return {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")}


def trl(folder: str, threads: int, **options: Any) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads, "row")
    from trl import RewardConfig, RewardTrainer

    model.config.pad_token_id = tokenizer.pad_token_id
    config = RewardConfig(**settings(folder, **options))
    rows = rows.map(whole, remove_columns=["prompt_ids", "source"])
    return timed(RewardTrainer(model, config, train_dataset=rows, processing_class=tokenizer))


def trl_without_checkpointing(folder: str, threads: int) -> dict[str, Any]:
    return trl(folder, threads, gradient_checkpointing=False)


def plain(folder: str, threads: int) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads, "row")
    import torch
    from torch.nn.functional import logsigmoid
    from torch.nn.utils.rnn import pad_sequence

    model.config.pad_token_id = tokenizer.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    order = torch.randperm(len(rows)).tolist()

    def epoch() -> None:
        for i in range(0, len(order), BATCH):
            batch = [whole(rows[j]) for j in order[i : i + BATCH]]
            ids = [torch.tensor(row[s]) for s in ("chosen_ids", "rejected_ids") for row in batch]
            mask = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True)
            padded = pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
            chosen, rejected = model(padded, attention_mask=mask, use_cache=False).logits.chunk(2)
            (-logsigmoid(chosen - rejected)).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    model.train()
    return timed(epoch)


PEERS = {
    "TRL": ("trl RewardTrainer, defaults", trl),
    "TRL without checkpointing": (
        "trl RewardTrainer, no activation checkpointing",
        trl_without_checkpointing,
    ),
    "plain": ("transformers, padded", plain),
}

if __name__ == "__main__":
    compare("reward", "preference", "pairs/s", ours, PEERS, head=False)
