"""Direct preference optimisation as one plain loop: what `DPOTrainer` must equal, step by step.

    python examples/dpo.py MODEL PAIRS.jsonl    # {"prompt": ..., "chosen": ..., "rejected": ...}

Every answer is forwarded with its own copy of the prompt; a second model is the reference.
"""

from __future__ import annotations

import copy
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from posttrain.formats import to_row
from posttrain.packing import GlobalBatches
from posttrain.tokens import Tokenizer, tokenize


def answer_logp(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Summed log-prob of an answer after its prompt."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    logps = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(1, torch.tensor(answer)[:, None]).sum()


def pair_loss(
    model: torch.nn.Module, reference: torch.nn.Module, row: dict, beta: float, normalise: bool
) -> torch.Tensor:
    """-log sigmoid of the difference of the answers' log-ratios."""
    ratios = []
    for side in ("chosen_ids", "rejected_ids"):
        with torch.no_grad():
            before = answer_logp(reference, row["prompt_ids"], row[side])
        ratio = answer_logp(model, row["prompt_ids"], row[side]) - before
        ratios.append(ratio / len(row[side]) if normalise else ratio)
    return -torch.nn.functional.logsigmoid(beta * (ratios[0] - ratios[1]))


def train(
    model, rows, *, steps, batch_size, learning_rate, beta=0.1, normalise=False, seed=42,
    max_grad_norm=1.0,
):  # fmt: skip
    """Train for some steps and return the loss of each."""
    reference = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    batches = GlobalBatches(len(rows), batch_size, batch_size, rank=0, world=1, seed=seed)
    losses: list[float] = []
    for epoch in range(steps):
        batches.set_epoch(epoch)
        for batch in batches:
            if len(losses) == steps:
                return losses
            pairs = [rows[i] for i in batch if i >= 0]
            loss = torch.stack(
                [pair_loss(model, reference, row, beta, normalise) for row in pairs]
            ).mean()
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
        raw = [to_row("preference", json.loads(line)) | {"source": "data"} for line in lines]
    rows = tokenize(raw, "preference", Tokenizer(tokenizer, max_length=2048)).rows
    for step, loss in enumerate(train(model, rows, steps=10, batch_size=8, learning_rate=5e-7), 1):
        print(f"step {step}: loss {loss:.4f}")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
