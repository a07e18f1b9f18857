"""Supervised fine-tuning: trained tokens per second, ours beside TRL and a plain loop.

    python benchmarks/sft.py [--quick] [--threads N] [--case NAME ...] --json OUT

- `TRL default`: its `SFTTrainer` as it comes: padded, with activation checkpointing.
- `TRL best`: packed (`bfd`), without checkpointing: the fastest of its settings here.
- `plain`: a padded transformers loop, all logits made, no checkpointing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases.trainers import BATCH, LENGTH, compare, settings, start, timed  # noqa: E402


def ours(folder: str, threads: int) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads)
    from posttrain import SFTConfig, SFTTrainer

    config = SFTConfig(**settings(folder, max_tokens_per_device=2 * LENGTH))
    trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer)
    return timed(trainer)


def trl(folder: str, threads: int, **options: Any) -> dict[str, Any]:
    model, tokenizer, rows = start(folder, threads)
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(**settings(folder, **options))
    rows = rows.select_columns(["input_ids", "labels"])
    trainer = SFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)
    return timed(trainer)


def trl_packed(folder: str, threads: int) -> dict[str, Any]:
    options = {"gradient_checkpointing": False, "packing": True, "gradient_accumulation_steps": 2}
    return trl(folder, threads, **options, per_device_train_batch_size=1)


def plain(folder: str, threads: int) -> dict[str, Any]:
    model, _, rows = start(folder, threads)
    import torch
    from torch.nn.utils.rnn import pad_sequence

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    order = torch.randperm(len(rows)).tolist()

    def epoch() -> None:
        for i in range(0, len(order), BATCH):
            batch = [rows[j] for j in order[i : i + BATCH]]
            ids = [torch.tensor(row["input_ids"]) for row in batch]
            labels = [torch.tensor(row["labels"]) for row in batch]
            mask = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True)
            loss = model(
                pad_sequence(ids, batch_first=True),
                attention_mask=mask,
                labels=pad_sequence(labels, batch_first=True, padding_value=-100),
                use_cache=False,
            ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    model.train()
    return timed(epoch)


PEERS = {
    "TRL default": ("trl SFTTrainer, defaults", trl),
    "TRL best": ("trl SFTTrainer, packing bfd, no checkpointing", trl_packed),
    "plain": ("transformers, padded", plain),
}

if __name__ == "__main__":
    compare("sft", "conversation", "trained tokens/s", ours, PEERS, head=True)
