"""`model.generate` with the engine's own draw, for models that the engine cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from posttrain.generation.base import Completion, Sampling
from posttrain.generation.sampling import noise, pick


class Draw(LogitsProcessor):
    """Leaves each row only the token that `pick` chooses for it, so that greedy search takes it."""

    def __init__(self, sampling: Sampling, uniform: torch.Tensor) -> None:
        self.sampling, self.uniform = sampling, uniform
        self.logps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = self.uniform[:, len(self.logps)] if self.sampling.temperature else None
        chosen, logps = pick(scores, self.sampling, uniform)
        self.logps.append(logps)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    num_generations: int,
    seed: int,
    numbers: Sequence[int],
) -> list[list[Completion]]:
    """Complete one left-padded batch; the answers are those that the engine would draw."""
    device = next(model.get_input_embeddings().parameters()).device
    rows = [list(p) for p in prompts for _ in range(num_generations)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    length = sampling.max_new_tokens if sampling.temperature else 0
    uniform = [noise(seed, n, g, length) for n in numbers for g in range(num_generations)]
    draw = Draw(sampling, torch.tensor([u.tolist() for u in uniform]).double().to(device))
    options: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "eos_token_id": list(eos_ids) or None,
        "pad_token_id": 0,
        "logits_processor": LogitsProcessorList([draw]),
    }
    causal: Any = model  # transformers does not declare what a causal LM inherits
    out = causal.generate(input_ids=ids, attention_mask=mask, **options)
    tokens, logps = out[:, width:].tolist(), torch.stack(draw.logps, 1).tolist()
    stops, done = set(eos_ids), []
    for row, values in zip(tokens, logps, strict=True):
        end = next((i + 1 for i, t in enumerate(row) if t in stops), len(row))
        done.append(Completion(row[:end], row[end - 1] in stops, values[:end]))
    return [done[i : i + num_generations] for i in range(0, len(done), num_generations)]
