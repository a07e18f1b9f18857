"""Continuous batching in process: finished rows leave, waiting prompts enter, nothing is padded.

A forward pass is one packed row: of prompts when they enter, of one token of every row after that.
It goes through the model as transformers wrote it; only attention is ours (waves.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from posttrain.attention import use_attention
from posttrain.generation.run import Run, device_of, forward
from posttrain.generation.waves import NAME, Decode, Prefill, Wave

MOST_WAVES = 4
logger = logging.getLogger(__name__)


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


class Packed(Run):
    """Rows in waves; the shapes of a step follow from those that are under way."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.waves: list[Wave] = []
        empty = torch.empty(0, dtype=torch.long, device=self.device)
        self.rows = Rows(empty, empty, empty, empty)

    def enter(self, count: int) -> None:
        """Take up the next prompts as a wave."""
        new, before = self.prefill(count), len(self.rows.line)
        none = torch.zeros_like(new.lines)
        self.rows = self.rows.join(Rows(none, new.position, none, new.lines))
        self.waves.append(Wave(new.keys, self.copies, self.sampling.max_new_tokens))
        while len(self.waves) > MOST_WAVES:
            self.join_smallest()
        self.move(new.logits, before)

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
        self.move(forward(self.model, rows.chosen, rows.position, Decode(self.waves)))

    def move(self, logits: torch.Tensor, start: int = 0) -> None:
        """Draw for the rows from `start` on, and let those go that end."""
        rows = self.rows.take(slice(start, None))
        chosen, gone = self.draw(logits, rows.line, rows.age)
        moved = Rows(chosen, rows.position + 1, rows.age + 1, rows.line)
        self.rows = self.rows.take(slice(start)).join(moved) if start else moved
        if gone is not None:
            self.leave(torch.cat([torch.zeros(start, dtype=torch.bool), gone]))

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
