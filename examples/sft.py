"""Supervised fine-tuning as one plain loop: what `SFTTrainer` must equal, step by step.

    python examples/sft.py MODEL ROWS.jsonl        # rows: {"messages": [...]}

No packing, no accumulation: one row at a time, loss = mean over all trained tokens of the batch.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from posttrain.packing import GlobalBatches
from posttrain.tokens import IGNORE, Tokenizer, tokenize


def token_nll(model: torch.nn.Module, input_ids: list[int], labels: list[int]) -> torch.Tensor:
    """Negative log-likelihood of each trained token of one row."""
    logits = model(input_ids=torch.tensor([input_ids])).logits[0, :-1]
    targets = torch.tensor(labels[1:])
    trained = targets != IGNORE
    return torch.nn.functional.cross_entropy(logits[trained], targets[trained], reduction="none")


def train(model, rows, *, steps, batch_size, learning_rate, seed=42, max_grad_norm=1.0):
    """Train for some steps and return the loss of each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    batches = GlobalBatches(len(rows), batch_size, batch_size, rank=0, world=1, seed=seed)
    losses: list[float] = []
    for epoch in range(steps):
        batches.set_epoch(epoch)
        for batch in batches:
            if len(losses) == steps:
                return losses
            some = [rows[i] for i in batch if i >= 0]
            nll = [token_nll(model, row["input_ids"], row["labels"]) for row in some]
            loss = torch.cat(nll).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def main(path: str, file: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with open(file, encoding="utf-8") as lines:
        raw = [json.loads(line) | {"source": "data"} for line in lines]
    rows = tokenize(raw, "conversation", Tokenizer(tokenizer, max_length=2048)).rows
    for step, loss in enumerate(train(model, rows, steps=10, batch_size=8, learning_rate=2e-5), 1):
        print(f"step {step}: loss {loss:.4f}")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
