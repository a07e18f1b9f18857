"""Generation in process with transformers: the default engine of training and evaluation.

Greedy output equals `model.generate` token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.attention import use_attention
from posttrain.errors import ModelError
from posttrain.formats import Message
from posttrain.generation import fallback
from posttrain.generation.base import Completion, OnGroup, Sampling, ignore
from posttrain.generation.engine import Packed, own_attention, unfit
from posttrain.generation.run import Run, device_of
from posttrain.generation.slots import Static
from posttrain.generation.waves import NAME
from posttrain.tokens import render, stop_ids

__all__ = ["Completion", "LocalEngine", "LocalGenerate", "Sampling", "eos_ids", "generate_ids"]

GREEDY = Sampling(temperature=0)


@dataclass(frozen=True)
class LocalEngine:
    """The `Engine` protocol over a loaded model, as it is now.

    Attributes:
        model: any causal LM of transformers.
        eos_ids: tokens that end an answer.
        batch_size: prompts whose answers are under way at a time.
        static_shapes: every step has the same shapes, and on a GPU is replayed as a CUDA graph
            (slots.py); `None`: on a GPU.
    """

    model: PreTrainedModel
    eos_ids: Sequence[int]
    batch_size: int = 64
    static_shapes: bool | None = None

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        num_generations: int = 1,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        on_group: OnGroup = ignore,
    ) -> list[list[Completion]]:
        model, training = self.model, self.model.training
        numbers = range(len(prompts)) if numbers is None else numbers
        for index, prompt in enumerate(prompts):
            if not len(prompt):
                raise ModelError(f"prompt {index} has no tokens: there is nothing to go on from")
        if not prompts:
            return []
        model.eval()
        try:
            if unfit(model):
                return self.fall_back(prompts, sampling, num_generations, seed, numbers, on_group)
            slots = self.batch_size * num_generations
            with use_attention(model, NAME):
                return self.kind(
                    model,
                    prompts,
                    sampling,
                    self.eos_ids,
                    num_generations,
                    slots,
                    seed,
                    numbers,
                    on_group,
                ).all()
        finally:
            model.train(training)

    @property
    def kind(self) -> type[Run]:
        """How rows are forwarded."""
        on_gpu = device_of(self.model).type == "cuda"
        wanted = on_gpu if self.static_shapes is None else self.static_shapes
        return Static if wanted else Packed

    def fall_back(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        num_generations: int,
        seed: int,
        numbers: Sequence[int],
        on_group: OnGroup,
    ) -> list[list[Completion]]:
        """Batches of prompts of similar length, one after another."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        results: list[list[Completion]] = [[] for _ in prompts]
        with use_attention(self.model, own_attention(self.model)):
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                groups = fallback.generate(
                    self.model,
                    [prompts[i] for i in part],
                    sampling,
                    self.eos_ids,
                    num_generations,
                    seed,
                    [numbers[i] for i in part],
                )
                for i, group in zip(part, groups, strict=True):
                    results[i] = group
                    on_group(i, group)
        return results


def generate_ids(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    *,
    num_generations: int = 1,
    batch_size: int = 64,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    on_group: OnGroup = ignore,
    static_shapes: bool | None = None,
) -> list[list[Completion]]:
    """Complete prompts with a loaded model; see `Engine` and `LocalEngine` for the arguments."""
    return LocalEngine(model, eos_ids, batch_size, static_shapes)(
        prompts,
        sampling,
        num_generations=num_generations,
        seed=seed,
        numbers=numbers,
        on_group=on_group,
    )


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends an answer: the tokenizer's EOS and those of the generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    extra = configured if isinstance(configured, list) else [configured]
    known = [tokenizer.eos_token_id, *extra]
    if tokenizer.chat_template:
        known += stop_ids(tokenizer)  # llama-3 ends a turn with a token that is not EOS
    return sorted({i for i in known if i is not None})


@dataclass(frozen=True)
class LocalGenerate:
    """The `Generate` protocol over a loaded model: conversations in, texts out."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling = GREEDY
    batch_size: int = 64

    def __call__(
        self, prompts: Sequence[Sequence[Message]], progress: Callable[[int], None] = lambda n: None
    ) -> list[str]:
        texts = [render(self.tokenizer, prompt, generation_prompt=True) for prompt in prompts]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        done = generate_ids(
            self.model,
            ids,
            self.sampling,
            eos_ids(self.model, self.tokenizer),
            batch_size=self.batch_size,
            on_group=lambda index, group: progress(1),
        )
        return [str(self.tokenizer.decode(c[0].ids, skip_special_tokens=True)) for c in done]
