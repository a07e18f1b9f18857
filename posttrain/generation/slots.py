"""Decoding in static shapes, replayed as CUDA graphs: on a GPU a step costs one launch.

A small step on a GPU is bound by the launches of its kernels, a few hundred of them. A CUDA graph
launches them all at once, but only with the shapes and addresses that it was recorded with. So
every row has a place that never moves, with the keys of its prompt and its own side by side; rows
that have ended are computed along until others take their places. Places are halved when the last
rows leave room, and columns come in blocks: there are few shapes, and a graph for each.

Prompts are copied for every answer, which `waves.py` does not do: it is for the CPU, where shapes
cost nothing and arithmetic does.

Legend: N places, K heads of keys, R query heads of each, C columns, D head width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch.nn.functional import scaled_dot_product_attention

from posttrain.generation.run import Run, forward
from posttrain.generation.waves import Prefill, longer

BLOCK = 256  # columns are added by so many
FEWEST = 16  # places; fewer cost as much
SHARE = 0.7  # of the free memory that keys may take
logger = logging.getLogger(__name__)
Pass = Callable[[], torch.Tensor]


class Slots:
    """Keys and values of all places: attention of one new token of each.

    Attributes:
        layers: per layer keys and values, each `[N, K, C, D]`.
        position: `[N]` of each row's newest token, which is the column of its keys too.
        columns: that are looked at; those behind a row's own are hidden from it.
    """

    def __init__(self, places: int, device: torch.device) -> None:
        self.layers: dict[int, list[torch.Tensor]] = {}
        self.places = torch.arange(places, device=device)
        self.position = torch.zeros(places, dtype=torch.long, device=device)
        self.columns = 0
        self.hidden: dict[int | None, torch.Tensor] = {}

    @property
    def room(self) -> int:
        """Columns that there are."""
        return next((key.shape[2] for key, _ in self.layers.values()), 0)

    def admit(self, prefill: Prefill, lines: torch.Tensor, copies: int) -> None:
        """Copy the keys of prompts to the places of their rows."""
        for layer, pair in prefill.layers.items():
            longest = pair[0].shape[2]
            if layer not in self.layers:  # what is never written must not be NaN
                shape = (len(self.places), pair[0].shape[1], blocks(longest + 1))
                self.layers[layer] = [x.new_zeros(*shape, x.shape[3]) for x in pair]
            for there, x in zip(self.layers[layer], pair, strict=True):
                there[lines, :, :longest] = x.repeat_interleave(copies, 0)

    def grow(self, columns: int) -> None:
        """Room for at least so many columns: half as many again, at least."""
        new = max(columns, blocks(self.room + self.room // 2))
        for pair in self.layers.values():
            for i, x in enumerate(pair):
                pair[i] = longer(x, new)
                pair[i][:, :, x.shape[2] :] = 0

    def take(self, order: torch.Tensor) -> None:
        """Some of the places, in an order."""
        for pair in self.layers.values():
            pair[:] = [x[order] for x in pair]
        self.position = self.position[order]
        self.places = self.places[: len(order)]

    def mask(self, window: int | None) -> torch.Tensor:
        """`[N, 1, 1, C]` what a row sees; the same for all layers of a step."""
        if window not in self.hidden:
            column = torch.arange(self.columns, device=self.position.device)
            newest = self.position[:, None]
            seen = column <= newest
            if window is not None:
                seen = seen & (column > newest - window)
            self.hidden[window] = seen[:, None, None]
        return self.hidden[window]

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        scale: float | None,
    ) -> torch.Tensor:
        """As `waves.Attend`, with T = N."""
        keys, values = self.layers[layer]
        keys[self.places, :, self.position] = key[0].transpose(0, 1)
        values[self.places, :, self.position] = value[0].transpose(0, 1)
        heads, rows, width = query.shape[1:]
        # query heads that share keys are the queries of one head: no key is repeated
        grouped = query[0].transpose(0, 1).reshape(rows, key.shape[1], -1, width)
        out = scaled_dot_product_attention(
            grouped,
            keys[:, :, : self.columns],
            values[:, :, : self.columns],
            attn_mask=self.mask(window),
            scale=scale,
        )
        return out.reshape(1, rows, heads, -1)


class Static(Run):
    """Rows in places: the line of a row in the tables is its place.

    Attributes:
        keys: of all places.
        chosen: `[N]` newest tokens, which the model has not seen.
        age: `[N]` new tokens so far.
        length: tokens of each row, its prompt's included; on the host, as `taken` is.
        taken: places of the rows under way, in order.
        lines: the same on the device.
        passes: the forward pass over so many columns.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        places = len(self.owner)
        self.keys = Slots(places, self.device)
        self.chosen = torch.zeros(places, dtype=torch.long, device=self.device)
        self.age = torch.zeros_like(self.chosen)
        self.length = [0] * places
        self.passes: dict[int, Pass] = {}
        self.look()

    def look(self) -> None:
        """See which places are taken."""
        free = set(self.free)
        self.taken = [line for line in range(len(self.owner)) if line not in free]
        self.lines = torch.tensor(self.taken, dtype=torch.long, device=self.device)

    def fitting(self, slots: int) -> int:
        """As many rows as have room for their longest in a share of the GPU's free memory."""
        if self.device.type != "cuda":
            return slots
        config = self.model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kept = getattr(config, "num_key_value_heads", None) or heads
        token = 2 * config.num_hidden_layers * kept * width * self.model.dtype.itemsize
        row = token * blocks(max(map(len, self.prompts)) + self.sampling.max_new_tokens)
        free, _ = torch.cuda.mem_get_info(self.device)
        return min(slots, int(SHARE * free / row))

    def enter(self, count: int) -> None:
        """Take up the next prompts in free places."""
        new = self.prefill(count)
        room = self.keys.room
        longest = new.keys.rows.shape[1]
        if room and longest > room:
            self.grow(blocks(longest))
        self.keys.admit(new.keys, new.lines, self.copies)
        self.keys.position[new.lines] = new.position
        self.age[new.lines] = 0
        places = new.lines.tolist()
        for line, position in zip(places, new.position.tolist(), strict=True):
            self.length[line] = position + 1
        self.move(new.logits, new.lines, places)
        self.look()

    def step(self) -> None:
        """One more token of every row."""
        if not self.waiting and FEWEST <= len(self.owner) // 2 >= len(self.taken):
            self.halve()
        columns = blocks(max(self.length[line] for line in self.taken))
        if columns > self.keys.room:
            self.grow(columns)
        if columns not in self.passes:
            self.passes[columns] = self.forward_pass(columns)
        logits = self.passes[columns]()
        self.move(logits[self.lines], self.lines, self.taken)

    def move(self, logits: torch.Tensor, lines: torch.Tensor, places: list[int]) -> None:
        """Draw for some rows, whose lines are given on both sides, and let those go that end."""
        age = self.age[lines]
        chosen, gone = self.draw(logits, lines, age)
        self.chosen[lines] = chosen
        self.keys.position[lines] += 1
        self.age[lines] = age + 1
        for line in places:
            self.length[line] += 1
        if gone is not None:  # computed along at the first column, which the next row overwrites
            self.keys.position[lines[gone.to(self.device)]] = 0
            self.look()

    def grow(self, columns: int) -> None:
        """Room for longer rows; what was recorded is of the old tensors."""
        self.keys.grow(columns)
        self.passes.clear()

    def halve(self) -> None:
        """Half as many places, with those first that are taken."""
        places = len(self.owner) // 2
        kept = [*self.taken, *self.free][:places]
        order = torch.tensor(kept, device=self.device)
        self.keys.take(order)
        for name in ("tokens", "logps", "noise", "chosen", "age"):
            setattr(self, name, getattr(self, name)[order])
        self.length = [self.length[i] for i in kept]
        self.owner = [self.owner[i] for i in kept]
        self.free = list(range(len(self.taken), places))
        self.passes.clear()
        self.look()

    def forward_pass(self, columns: int) -> Pass:
        """Over all places and so many columns: `[N, V]` logits; on a GPU as a graph."""

        def plain() -> torch.Tensor:
            self.keys.columns = columns
            self.keys.hidden = {}
            return forward(self.model, self.chosen, self.keys.position, self.keys)

        if self.device.type != "cuda" or self.model in unrecordable:
            return plain
        graph, why = recorded(plain)
        if why:
            unrecordable.add(self.model)
            logger.warning("generation: no CUDA graph, so every kernel is launched: %s", why)
        return graph


unrecordable: WeakSet[torch.nn.Module] = WeakSet()  # models for which it was tried in vain


def recorded(plain: Pass) -> tuple[Pass, str]:
    """A pass as a CUDA graph; itself, and why, where that cannot be or says something else.

    Args:
        plain: does the same however often it is called.
    """
    try:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            plain()  # what is set up at a first call must not be recorded
            expected = plain()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = plain()
        graph.replay()
        gap = float((out - expected).float().norm() / expected.float().norm())
        why = "" if gap <= 1e-3 else f"its logits are off by {gap:.1%}"
    except RuntimeError as error:
        why = str(error).splitlines()[0][:160]
    if why:
        return plain, why

    def replay() -> torch.Tensor:
        graph.replay()
        return out

    return replay, ""


def blocks(columns: int) -> int:
    """So many columns, rounded up to whole blocks."""
    return -(-columns // BLOCK) * BLOCK
