"""Generation in process with transformers: shared prompt prefill, finished rows leave the batch.

Greedy output equals `model.generate` token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from posttrain.attention import use_attention
from posttrain.formats import Message
from posttrain.tokens import render, stop_ids


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy."""

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """Tokens of one answer; `finished` when it ends with EOS (which is kept)."""

    ids: list[int]
    finished: bool


def pick(
    logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None
) -> torch.Tensor:
    """The next token of each row: `[B, V]` logits -> `[B]`."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
        choice = torch.multinomial(ordered, 1, generator=generator)
        return order.gather(-1, choice)[:, 0]
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


@dataclass
class State:
    """Rows that are being completed: what the model has seen, and the logits of what comes next."""

    cache: DynamicCache
    logits: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor

    def keep(self, rows: torch.Tensor) -> None:
        """Let the other rows go."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def feed(self, model: PreTrainedModel, chosen: torch.Tensor) -> None:
        """One more token of every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(chosen), 1)], 1)
        self.position = self.position + 1
        self.logits = model(
            input_ids=chosen[:, None],
            attention_mask=self.mask,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]


def prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]], copies: int) -> State:
    """Forward left-padded prompts once, then make `copies` rows of each."""
    device = next(model.get_input_embeddings().parameters()).device
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    cache = DynamicCache(config=model.config)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    position = position[:, -1]
    if copies > 1:
        cache.batch_repeat_interleave(copies)
        logits, mask, position = (x.repeat_interleave(copies, 0) for x in (logits, mask, position))
    return State(cache, logits, mask, position)


@torch.no_grad()
def generate_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    num_generations: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[Completion]]:
    """Complete one batch of prompts, `num_generations` times each; the prompt is prefilled once.

    Returns:
        Per prompt its completions.
    """
    state = prefill(model, prompts, num_generations)
    device, total = state.logits.device, len(prompts) * num_generations
    eos = torch.tensor(list(eos_ids), device=device)
    tokens = torch.zeros(total, sampling.max_new_tokens, dtype=torch.long, device=device)
    lengths = torch.full((total,), sampling.max_new_tokens, device=device)
    done = torch.zeros(total, dtype=torch.bool, device=device)
    alive = torch.arange(total, device=device)  # rows still in the batch
    for step in range(sampling.max_new_tokens):
        chosen = pick(state.logits, sampling, generator)
        tokens[alive, step] = chosen
        ended = torch.isin(chosen, eos) & ~done[alive]
        lengths[alive[ended]] = step + 1
        done[alive[ended]] = True
        running = (~done[alive]).nonzero()[:, 0]
        if not len(running) or step + 1 == sampling.max_new_tokens:
            break
        if len(running) <= 0.75 * len(alive):  # copying the cache must pay for itself
            state.keep(running)
            alive, chosen = alive[running], chosen[running]
        state.feed(model, chosen)
    flat = [
        Completion(row[:n], bool(d))
        for row, n, d in zip(tokens.tolist(), lengths.tolist(), done.tolist(), strict=True)
    ]
    return [flat[i * num_generations : (i + 1) * num_generations] for i in range(len(prompts))]


def generate_ids(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    *,
    num_generations: int = 1,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> list[list[Completion]]:
    """Complete prompts in batches of similar length; answers come back in the order given."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    results: list[list[Completion]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        with use_attention(model, "sdpa"):
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                batch = [prompts[i] for i in part]
                done = generate_batch(model, batch, sampling, eos_ids, num_generations, generator)
                for i, completions in zip(part, done, strict=True):
                    results[i] = completions
                progress(len(part))
    finally:
        model.train(training)
    return results


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
    sampling: Sampling = Sampling(temperature=0)
    batch_size: int = 64

    def __call__(
        self, prompts: Sequence[Sequence[Message]], progress: Callable[[int], None] = lambda n: None
    ) -> list[str]:
        texts = [render(self.tokenizer, prompt, generation_prompt=True) for prompt in prompts]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        stop = eos_ids(self.model, self.tokenizer)
        done = generate_ids(
            self.model, ids, self.sampling, stop, batch_size=self.batch_size, progress=progress
        )
        return [str(self.tokenizer.decode(c[0].ids, skip_special_tokens=True)) for c in done]
