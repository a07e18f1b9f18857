"""Keys and values of rows that are being completed, and exact attention over them.

Prompts enter in waves. A wave holds the keys of each prompt once, however many answers it has, and
the keys of the rows' own tokens apart from them. All rows of a wave have as many tokens of their
own, so nothing of those is padding; attention is one softmax over both. Small waves are joined, and
only then do rows differ in age: they end in the same column and begin in different ones. The
model's linear layers see one token of every row of every wave and know nothing of this.

Legend: T tokens, P prompts, N rows, H heads, K heads of keys, D head width, L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from posttrain.attention.kernels import Call, attend
from posttrain.errors import ModelError

NAME = "posttrain_waves"
GROWTH = 64  # columns of a wave's own keys to begin with; doubled when they are full

# layer, query [1, H, T, D], key and value [1, K, T, D], window, scale -> [1, T, H, D]
Attend = Callable[
    [int, torch.Tensor, torch.Tensor, torch.Tensor, int | None, float | None], torch.Tensor
]


def wave_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    waves: Attend | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Hand a layer's queries, keys and values to whoever holds the keys of the tokens before."""
    if waves is None:
        raise ModelError(f"{type(module).__name__} does not hand `waves` on to its attention")
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ModelError(f"{type(module).__name__} asks attention for {name!r}")
    layer: int = module.layer_idx  # type: ignore[assignment]
    return waves(layer, query, key, value, sliding_window, scaling), None


AttentionInterface.register(NAME, wave_attention)


@dataclass
class Keys:
    """What one layer of a wave remembers: of prompts `[P, K, L, D]`, of rows `[N, K, C, D]`."""

    prompt_key: torch.Tensor
    prompt_value: torch.Tensor
    own_key: torch.Tensor
    own_value: torch.Tensor

    def each(self, function: Callable[[torch.Tensor], None]) -> None:
        """Do the same to the rows' keys and to their values."""
        function(self.own_key)
        function(self.own_value)


@dataclass
class Prefill:
    """Causal attention over prompts, one after another, that keeps their keys and values.

    Attributes:
        lengths: of the prompts.
    """

    lengths: Sequence[int]
    device: torch.device
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = torch.tensor(list(self.lengths))
        start, width = sizes.cumsum(0) - sizes, int(sizes.max())
        columns = torch.arange(width)
        rows = torch.where(columns < sizes[:, None], start[:, None] + columns, 0)
        self.position = torch.cat([columns[:n] for n in sizes.tolist()]).to(self.device)
        prompt = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.last = (start + sizes - 1).to(self.device)
        self.rows = rows.to(self.device)
        self.back = prompt.to(self.device) * width + self.position

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        scale: float | None,
    ) -> torch.Tensor:
        def padded(x: torch.Tensor) -> torch.Tensor:
            return x[0].transpose(0, 1)[self.rows].transpose(1, 2).contiguous()

        self.layers[layer] = padded(key), padded(value)
        parts = tuple((n, -1) for n in self.lengths)
        return attend(query, key, value, Call(self.rows, self.back, parts, window, scale))


class Wave:
    """Prompts that entered together, and those of their rows that are still being completed.

    Args:
        prefill: has seen the prompts.
        copies: rows of each.
        capacity: a row has at most so many tokens of its own.
    """

    def __init__(self, prefill: Prefill, copies: int, capacity: int) -> None:
        self.device, self.capacity = prefill.device, capacity
        self.lengths = torch.tensor(list(prefill.lengths))
        self.prompt = torch.arange(len(self.lengths)).repeat_interleave(copies)  # of each row
        self.columns = 0  # tokens of its own that the oldest row has
        self.begin = torch.zeros_like(self.prompt)  # column of each row's first one
        size = min(GROWTH, capacity)
        self.layers = {}
        for layer, (key, value) in prefill.layers.items():
            own = [
                x.new_empty(len(self.prompt), x.shape[1], size, x.shape[3]) for x in (key, value)
            ]
            self.layers[layer] = Keys(key, value, *own)
        self.arrange()

    def __len__(self) -> int:
        return len(self.prompt)

    def arrange(self) -> None:
        """Work out where each row stands among those of its prompt."""
        rows, prompts = len(self.prompt), len(self.lengths)
        counts = torch.bincount(self.prompt, minlength=prompts)
        self.width = int(counts.max())
        order = self.prompt.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(rows) - (counts.cumsum(0) - counts)[self.prompt[order]]
        place = self.prompt * self.width + rank
        full = rows == prompts * self.width and bool((place == torch.arange(rows)).all())
        self.place = None if full else place.to(self.device)
        self.longest = int(self.lengths.max())
        self.mixed = bool(self.begin.any())
        self.hidden: dict[int | None, torch.Tensor | None] = {}

    def keep(self, alive: torch.Tensor) -> torch.Tensor:
        """Let the rows go that are not alive; the last ones take their places.

        Args:
            alive: `[N]` on the host.

        Returns:
            `[N']` which row stands in each place now.
        """
        order, holes, movers = fill(alive)
        if len(movers):
            to, source = holes.to(self.device), movers.to(self.device)

            def move(x: torch.Tensor) -> None:
                x[to, :, : self.columns] = x[source, :, : self.columns]

            for keys in self.layers.values():
                keys.each(move)
        self.prompt, self.begin = self.prompt[order], self.begin[order]
        wanted = torch.zeros(len(self.lengths), dtype=torch.bool)
        wanted[self.prompt] = True
        if len(order) and not bool(wanted.all()):
            self.keep_prompts(wanted)
        if len(order):
            self.trim(int(self.begin.min()))
            self.arrange()
        return order

    def keep_prompts(self, wanted: torch.Tensor) -> None:
        """Let the prompts go that have no rows any more."""
        order, holes, movers = fill(wanted)
        to, source = holes.to(self.device), movers.to(self.device)
        for keys in self.layers.values():
            for x in (keys.prompt_key, keys.prompt_value):
                x[to] = x[source]
        place = torch.empty(len(wanted), dtype=torch.long)
        place[order] = torch.arange(len(order))
        self.prompt, self.lengths = place[self.prompt], self.lengths[order]

    def trim(self, spare: int) -> None:
        """Drop the first columns: no row is old enough to have them."""
        if not spare:
            return

        def shift(x: torch.Tensor) -> None:
            x[: len(self), :, : self.columns - spare] = x[
                : len(self), :, spare : self.columns
            ].clone()

        for keys in self.layers.values():
            keys.each(shift)
        self.columns -= spare
        self.begin -= spare

    def join(self, younger: Wave) -> None:
        """Take in the rows of a wave that entered later; they come after these."""
        rows, behind = len(self), self.columns - younger.columns
        for layer, keys in self.layers.items():
            other = younger.layers[layer]
            prompts = [
                stack(a[: len(self.lengths)], b[: len(younger.lengths)])
                for a, b in (
                    (keys.prompt_key, other.prompt_key),
                    (keys.prompt_value, other.prompt_value),
                )
            ]
            own = []
            for a, b in ((keys.own_key, other.own_key), (keys.own_value, other.own_value)):
                x = a.new_empty(rows + len(younger), *a.shape[1:])
                x[:rows] = a[:rows]
                # never seen, but a product of 0 and whatever stands there must be 0
                x[rows:, :, :behind] = 0
                x[rows:, :, behind : self.columns] = b[: len(younger), :, : younger.columns]
                own.append(x)
            self.layers[layer] = Keys(*prompts, *own)
        self.prompt = torch.cat([self.prompt, younger.prompt + len(self.lengths)])
        self.lengths = torch.cat([self.lengths, younger.lengths])
        self.begin = torch.cat([self.begin, younger.begin + behind])
        self.arrange()

    def grow(self) -> None:
        """Room for one more token of every row."""
        self.columns += 1
        self.hidden = {} if self.mixed else {k: v for k, v in self.hidden.items() if k is None}
        for keys in self.layers.values():
            size = keys.own_key.shape[2]
            if self.columns > size:
                more = min(2 * size, self.capacity)
                keys.own_key = longer(keys.own_key[: len(self)], more)
                keys.own_value = longer(keys.own_value[: len(self)], more)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """`[N, 1, 1, L]`, or `L + C` of a wave of mixed ages: what a row does not see."""
        if window not in self.hidden:
            lengths = self.lengths[self.prompt][:, None]
            column = torch.arange(self.longest)
            hidden = column >= lengths
            if window is not None:
                newest = lengths + self.columns - 1 - self.begin[:, None]
                hidden |= column <= newest - window
            if self.mixed:
                first = max(0, self.columns - window) if window is not None else 0
                before = torch.arange(first, self.columns) < self.begin[:, None]
                hidden = torch.cat([hidden, before], 1)
            self.hidden[window] = (
                hidden[:, None, None].to(self.device) if bool(hidden.any()) else None
            )
        return self.hidden[window]

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, K, R, X]` of rows -> `[P, K, W * R, X]`, the rows of a prompt side by side."""
        if self.place is not None:
            laid = x.new_zeros(len(self.lengths) * self.width, *x.shape[1:])
            x = laid.index_copy_(0, self.place, x)
        if self.width == 1:
            return x
        _, heads, shared, size = x.shape
        x = x.reshape(-1, self.width, heads, shared, size).transpose(1, 2)
        return x.reshape(-1, heads, self.width * shared, size)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """`[P, K, W * R, X]` -> `[N, K, R, X]`."""
        if self.width > 1:
            _, heads, both, size = x.shape
            shared = both // self.width
            x = x.reshape(-1, heads, self.width, shared, size).transpose(1, 2)
            x = x.reshape(-1, heads, shared, size)
        return x if self.place is None else x.index_select(0, self.place)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        scale: float | None,
    ) -> torch.Tensor:
        """Each row's newest token over its prompt and its own tokens: `[N, H, D]` -> the same."""
        rows, heads, width = query.shape
        keys, last = self.layers[layer], self.columns - 1
        keys.own_key[:rows, :, last], keys.own_value[:rows, :, last] = key, value
        first = max(0, self.columns - window) if window is not None else 0
        own_key = keys.own_key[:rows, :, first : self.columns]
        own_value = keys.own_value[:rows, :, first : self.columns]
        query = (query * (width**-0.5 if scale is None else scale)).view(
            rows, key.shape[1], heads // key.shape[1], width
        )
        prompts, longest = len(self.lengths), self.longest
        prompt_key = keys.prompt_key[:prompts, :, :longest]
        over_prompt = self.gather(self.spread(query) @ prompt_key.transpose(2, 3))
        scores = torch.cat([over_prompt, query @ own_key.transpose(2, 3)], -1).float()
        hidden = self.mask(window)
        if hidden is not None:
            scores[..., : hidden.shape[-1]].masked_fill_(hidden, float("-inf"))
        weights = scores.softmax(-1).to(value.dtype)
        prompt_value = keys.prompt_value[:prompts, :, :longest]
        out = self.gather(self.spread(weights[..., :longest]) @ prompt_value)
        return (out + weights[..., longest:] @ own_value).reshape(rows, heads, -1)


def fill(alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which one stands where when the last take the places of those gone; the places; who moved."""
    count = int(alive.sum())
    holes = (~alive[:count]).nonzero()[:, 0]
    movers = alive[count:].nonzero()[:, 0] + count
    order = torch.arange(count)
    order[holes] = movers
    return order, holes, movers


def stack(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`[P, K, L, D]` and `[Q, K, M, D]` -> `[P + Q, K, max(L, M), D]`, padded with zeros."""
    x = a.new_zeros(len(a) + len(b), a.shape[1], max(a.shape[2], b.shape[2]), a.shape[3])
    x[: len(a), :, : a.shape[2]] = a
    x[len(a) :, :, : b.shape[2]] = b
    return x


def longer(x: torch.Tensor, columns: int) -> torch.Tensor:
    """`[N, K, C, D]` with room for more columns."""
    out = x.new_empty(*x.shape[:2], columns, x.shape[3])
    out[:, :, : x.shape[2]] = x
    return out


@dataclass
class Decode:
    """One new token of every row of every wave."""

    waves: Sequence[Wave]

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        window: int | None,
        scale: float | None,
    ) -> torch.Tensor:
        query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
        outs, start = [], 0
        for wave in self.waves:
            part = slice(start, start + len(wave))
            outs.append(wave.attend(layer, query[part], key[part], value[part], window, scale))
            start = part.stop
        return (outs[0] if len(outs) == 1 else torch.cat(outs))[None]
