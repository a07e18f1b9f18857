"""Continuous batching in process: finished rows leave, waiting prompts enter, nothing is padded.

A forward pass is one packed row: of prompts when they enter, of one token of every row after that.
It goes through the model as transformers wrote it; only attention is ours (waves.py).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from posttrain.attention import use_attention
from posttrain.generation.base import Completion, OnGroup, Sampling
from posttrain.generation.sampling import noise, pick
from posttrain.generation.waves import NAME, Attend, Decode, Prefill, Wave

MOST_WAVES = 4
PREFILL_TOKENS = 16_384  # prompt tokens of one forward pass, at most
logger = logging.getLogger(__name__)


def forward(
    model: PreTrainedModel,
    ids: torch.Tensor,
    position: torch.Tensor,
    waves: Attend,
    keep: torch.Tensor | int = 0,
) -> torch.Tensor:
    """`[T]` tokens at their positions -> `[T, V]` logits, or those of the places in `keep`."""
    return model(
        input_ids=ids[None],
        position_ids=position[None],
        use_cache=False,
        logits_to_keep=keep,
        waves=waves,
    ).logits[0]


@dataclass
class Rows:
    """What is known of the rows under way, in the order of the waves.

    Attributes:
        chosen: `[N]` the newest token, which the model has not seen.
        position: `[N]` its position.
        age: `[N]` new tokens so far.
        line: `[N]` the line of the tables in which they are written down.
    """

    chosen: torch.Tensor
    position: torch.Tensor
    age: torch.Tensor
    line: torch.Tensor

    def join(self, other: Rows) -> Rows:
        """These rows, then others."""
        both = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Rows(*(torch.cat(pair) for pair in both))

    def take(self, order: torch.Tensor | slice) -> Rows:
        """Some of the rows, in an order."""
        return Rows(*(getattr(self, f.name)[order] for f in fields(self)))


class Run:
    """One call of the engine: what waits, what is under way, what is done."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        eos_ids: Sequence[int],
        num_generations: int,
        slots: int,
        seed: int,
        numbers: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.copies, self.seed, self.numbers = num_generations, seed, numbers
        self.on_group = on_group
        self.slots = max(slots, num_generations)
        self.device = device_of(model)
        vocabulary = model.config.get_text_config().vocab_size
        self.ends = torch.zeros(vocabulary, dtype=torch.bool, device=self.device)
        for i in eos_ids:
            self.ends[i : i + 1] = True  # a token that the model does not have is no fault
        # prompts of like length enter together
        self.waiting = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
        self.results: list[list[Completion]] = [[] for _ in prompts]
        self.found: dict[int, dict[int, Completion]] = {}
        self.waves: list[Wave] = []
        empty = torch.empty(0, dtype=torch.long, device=self.device)
        self.rows = Rows(empty, empty, empty, empty)
        lines = min(self.slots, len(prompts) * num_generations)
        shape = (lines, sampling.max_new_tokens)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=self.device)
        self.logps = torch.zeros(shape, device=self.device)
        self.noise = torch.zeros(
            shape if sampling.temperature else (lines, 0), dtype=torch.float64, device=self.device
        )
        self.free = list(range(lines))[::-1]
        self.owner: list[tuple[int, int]] = [(0, 0)] * lines

    def all(self) -> list[list[Completion]]:
        """Go on until every prompt has its answers."""
        while self.waiting or self.waves:
            while self.entering():
                self.enter(self.entering())
            if self.waves:
                self.step()
        return self.results

    def entering(self) -> int:
        """How many prompts enter now: few at a time would make many small waves."""
        count = min(len(self.free) // self.copies, len(self.waiting))
        enough = count == len(self.waiting) or 4 * count * self.copies >= self.slots
        return count if enough or not self.waves else 0

    def enter(self, count: int) -> None:
        """Forward the next prompts, each once, and draw the first token of their rows."""
        chosen: list[int] = []
        tokens = 0
        while len(chosen) < count:
            tokens += len(self.prompts[self.waiting[0]])
            if chosen and tokens > PREFILL_TOKENS:
                break
            chosen.append(self.waiting.popleft())
        prefill = Prefill([len(self.prompts[i]) for i in chosen], self.device)
        ids = torch.tensor([t for i in chosen for t in self.prompts[i]], device=self.device)
        logits = forward(self.model, ids, prefill.position, prefill, prefill.last)
        lines = torch.tensor([self.line(i, g) for i in chosen for g in range(self.copies)])
        lines = lines.to(self.device)
        position = prefill.position[prefill.last].repeat_interleave(self.copies)
        before, none = len(self.rows.line), torch.zeros_like(lines)
        self.rows = self.rows.join(Rows(none, position, none, lines))
        self.waves.append(Wave(prefill, self.copies, self.sampling.max_new_tokens))
        while len(self.waves) > MOST_WAVES:
            self.join_smallest()
        self.draw(logits.repeat_interleave(self.copies, 0), before)

    def line(self, prompt: int, generation: int) -> int:
        """A free line of the tables for an answer, with the numbers that it is drawn by."""
        line = self.free.pop()
        self.owner[line] = (prompt, generation)
        if self.sampling.temperature:
            drawn = noise(self.seed, self.numbers[prompt], generation, self.sampling.max_new_tokens)
            self.noise[line] = torch.from_numpy(drawn)
        return line

    def join_smallest(self) -> None:
        """Make one wave of two neighbours: many waves mean many small products."""
        sizes = [len(a) + len(b) for a, b in pairwise(self.waves)]
        at = sizes.index(min(sizes))
        self.waves[at].join(self.waves.pop(at + 1))

    def step(self) -> None:
        """One more token of every row."""
        for wave in self.waves:
            wave.grow()
        rows = self.rows
        self.draw(forward(self.model, rows.chosen, rows.position, Decode(self.waves)))

    def draw(self, logits: torch.Tensor, start: int = 0) -> None:
        """Choose the next token of the rows from `start` on, and let those go that end with it."""
        rows = self.rows.take(slice(start, None))
        uniform = self.noise[rows.line, rows.age] if self.sampling.temperature else None
        chosen, logps = pick(logits, self.sampling, uniform)
        self.tokens[rows.line, rows.age] = chosen
        self.logps[rows.line, rows.age] = logps
        age = rows.age + 1
        moved = Rows(chosen, rows.position + 1, age, rows.line)
        self.rows = self.rows.take(slice(start)).join(moved) if start else moved
        ended = self.ends[chosen]
        gone = ended | (age == self.sampling.max_new_tokens)
        if bool(gone.any()):
            self.write_down(rows.line[gone], age[gone], ended[gone])
            none = torch.zeros(start, dtype=torch.bool)
            self.leave(torch.cat([none, gone.cpu()]))

    def write_down(self, lines: torch.Tensor, ages: torch.Tensor, ended: torch.Tensor) -> None:
        """Rows have ended: their answers, and the groups that are whole now."""
        longest = int(ages.max())
        tokens = self.tokens[lines, :longest].tolist()
        logps = self.logps[lines, :longest].tolist()
        for row, (line, age, end) in enumerate(
            zip(lines.tolist(), ages.tolist(), ended.tolist(), strict=True)
        ):
            prompt, generation = self.owner[line]
            group = self.found.setdefault(prompt, {})
            group[generation] = Completion(tokens[row][:age], end, logps[row][:age])
            self.free.append(line)
            if len(group) == self.copies:
                self.results[prompt] = [group[g] for g in range(self.copies)]
                del self.found[prompt]
                self.on_group(prompt, self.results[prompt])

    def leave(self, gone: torch.Tensor) -> None:
        """Let rows go, on the host, and the waves that have none left."""
        orders, start = [], 0
        for wave in self.waves:
            size = len(wave)
            alive = ~gone[start : start + size]
            order = torch.arange(size) if bool(alive.all()) else wave.keep(alive)
            orders.append(order + start)
            start += size
        self.waves = [wave for wave in self.waves if len(wave)]
        self.rows = self.rows.take(torch.cat(orders).to(self.device))


def device_of(model: PreTrainedModel) -> torch.device:
    """Where the tokens go in."""
    return next(model.get_input_embeddings().parameters()).device


def own_attention(model: PreTrainedModel) -> str:
    """An implementation that works with padding and without our collators."""
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


# --- what the engine can run ----------------------------------------------------------------------

known: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


def unfit(model: PreTrainedModel) -> str:
    """Why the engine cannot run a model, or nothing; tried once on a small example."""
    if model not in known:
        known[model] = misfit(model)
        if known[model]:
            logger.warning(
                "generation: %s goes through model.generate, which is slower: %s",
                type(model).__name__,
                known[model],
            )
    return known[model]


def misfit(model: PreTrainedModel) -> str:
    """As `unfit`, afresh."""
    config = model.config.get_text_config()
    if not getattr(model, "_supports_sdpa", False):
        return "its attention does not go through transformers' interface"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {str(r.get("rope_type")) for r in (rope, *rope.values()) if isinstance(r, dict)}
    if kinds & {"dynamic", "longrope"}:
        return "its rotary embedding depends on the longest row of the batch"
    try:
        return differs(model)
    except Exception as error:  # an architecture that hands on less says so in many ways
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]


@torch.no_grad()
def differs(model: PreTrainedModel) -> str:
    """How the engine's logits differ from the model's own on two prompts with two answers each."""
    device = device_of(model)
    size = model.config.get_text_config().vocab_size
    texts = [torch.arange(3, 3 + 7 * n, 7, device=device) % size for n in (9, 5)]
    with use_attention(model, own_attention(model)):
        plain = [model(input_ids=text[None], use_cache=False).logits[0, -3:] for text in texts]
    with use_attention(model, NAME):
        prefill = Prefill([len(t) - 2 for t in texts], device)
        ids = torch.cat([t[:-2] for t in texts])
        ours = [forward(model, ids, prefill.position, prefill, prefill.last)]
        wave = Wave(prefill, 2, 4)
        position = prefill.position[prefill.last].repeat_interleave(2)
        for place in (-2, -1):
            wave.grow()
            position = position + 1
            chosen = torch.stack([t[place] for t in texts]).repeat_interleave(2)
            ours.append(forward(model, chosen, position, Decode([wave]))[::2])
    a, b = torch.stack(plain, 1).float(), torch.stack(ours).float()
    gap = float((a - b).norm() / a.norm())
    limit = 1e-3 if a.dtype == plain[0].dtype else 5e-2
    return "" if gap <= limit else f"its logits are off by {gap:.1%} on a small example"
