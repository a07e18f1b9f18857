"""The attention kernels for packed rows, and which of them is taken.

    flash_attention_3, flash_attention_2, torch_varlen   one call for all parts; half precision
    flex     one compiled kernel with a block mask; any precision, on NVIDIA GPUs
    parts    plain causal attention part by part; nothing is padded, many small calls: for the CPU
    padded   each sequence in a padded row of its own; no mask is needed, for padding stands right

A kernel that is taken on a GPU has first given the outputs and gradients of `padded` there, on a
small example: one that is missing, that fails or that is wrong is passed over. `docs/kernels.md`
says more.

Legend: T packed tokens, P parts, B sequences, L longest sequence, H heads, D head width.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "Call"], torch.Tensor]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """What attention is computed over, and how.

    Attributes:
        rows: `[B, L]` packed positions of each sequence, right-padded with any position.
        back: `[T]` where each packed token stands in the flattened rows.
        parts: per part its length, and which part it follows (-1: none), if that is known.
        window: how many of the last tokens a token sees, itself included (Mistral); `None`: all.
        scale: of the scores; `None`: 1 / sqrt(D).
        dropout: of the probabilities.
    """

    rows: torch.Tensor
    back: torch.Tensor
    parts: tuple[tuple[int, int], ...] | None
    window: int | None = None
    scale: float | None = None
    dropout: float = 0.0

    @property
    def windowed(self) -> bool:
        """Whether the window hides anything."""
        return self.window is not None and self.rows.shape[1] > self.window


class Parts:
    """How a packed row is made of parts, in the forms that kernels ask for, on one device."""

    def __init__(self, table: tuple[tuple[int, int], ...], device: torch.device) -> None:
        self.device = device
        self.sizes = [size for size, _ in table]
        self.after = [after for _, after in table]
        self.key_sizes = [n + (self.sizes[a] if a >= 0 else 0) for n, a in table]

    @cached_property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`[P + 1]` int32 where the queries, and the keys, of each part begin."""
        tables = [torch.tensor([0, *sizes]).cumsum(0) for sizes in (self.sizes, self.key_sizes)]
        first, second = (t.to(self.device, torch.int32) for t in tables)
        return first, second

    @cached_property
    def keys(self) -> torch.Tensor | None:
        """Packed positions of the keys of all parts one after another; `None`: as they stand."""
        if max(self.after, default=-1) < 0:
            return None
        whole = torch.split(torch.arange(sum(self.sizes)), self.sizes)
        order: list[torch.Tensor] = []
        for own, after in zip(whole, self.after, strict=True):
            order += [whole[after], own] if after >= 0 else [own]
        return torch.cat(order).to(self.device)

    @cached_property
    def places(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`[T]` of each token: its part, the part that this follows, its place in the sequence."""
        sizes = torch.tensor(self.sizes)
        part = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        offset = (torch.tensor(self.key_sizes) - sizes)[part]
        within = torch.cat([torch.arange(n) for n in self.sizes]) + offset
        after = torch.tensor(self.after)[part]
        return part.to(self.device), after.to(self.device), within.to(self.device)


@lru_cache(maxsize=4)
def parts_of(table: tuple[tuple[int, int], ...], device: torch.device) -> Parts:
    """The parts of a batch, worked out once for all layers."""
    return Parts(table, device)


# --- the kernels ----------------------------------------------------------------------------------


def visible(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """`[queries, keys]` which keys the last `queries` tokens of `keys` ones see."""
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(
        keys, device=device
    )
    return (distance >= 0) & (distance < (keys if window is None else window))


def padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> torch.Tensor:
    """Every sequence in a right-padded row; each token's output is taken back from one of them."""
    batch, length = call.rows.shape
    flat = call.rows.reshape(-1)

    def gather(x: torch.Tensor) -> torch.Tensor:
        heads, width = x.shape[1], x.shape[3]
        rows = x.transpose(1, 2).reshape(-1, heads * width).index_select(0, flat)
        return rows.view(batch, length, heads, width).transpose(1, 2)

    mask = visible(length, length, call.window, q.device) if call.windowed else None
    out = sdpa(gather(q), gather(k), gather(v), mask, call)
    heads, width = out.shape[1], out.shape[3]
    out = out.transpose(1, 2).reshape(batch * length, heads * width)
    return out.index_select(0, call.back).view(1, -1, heads, width)


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, call: Call
) -> torch.Tensor:
    """PyTorch's attention, causal without a mask; heads of keys may be shared."""
    shared = q.shape[1] != k.shape[1]
    if shared and (mask is not None or q.shape[3] > 256 or k.shape[3] != v.shape[3]):
        # its fast kernels would not do this
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        shared = False
    return scaled_dot_product_attention(
        q, k, v, mask, call.dropout, is_causal=mask is None, scale=call.scale, enable_gqa=shared
    )


def by_parts(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> torch.Tensor:
    """Part by part. The pieces of one split share one backward pass, unlike slices."""
    assert call.parts is not None
    parts, outs = parts_of(call.parts, q.device), []
    qs, ks, vs = (torch.split(x, parts.sizes, dim=2) for x in (q, k, v))
    for i, after in enumerate(parts.after):
        key, value, mask = ks[i], vs[i], None
        if after >= 0:
            key, value = (torch.cat([x[after], x[i]], dim=2) for x in (ks, vs))
        if after >= 0 or (call.window is not None and key.shape[2] > call.window):
            mask = visible(parts.sizes[i], key.shape[2], call.window, q.device)
        outs.append(sdpa(qs[i], key, value, mask, call).transpose(1, 2))
    return torch.cat(outs, dim=1)


def varlen(kernel: Callable[..., Any]) -> Attend:
    """A kernel for sequences one after another, as FlashAttention-2 takes them (arXiv:2307.08691).

    Its causal mask is aligned to the last key, so that an answer's queries see the whole prompt.
    """

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> torch.Tensor:
        assert call.parts is not None
        parts = parts_of(call.parts, q.device)
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        if parts.keys is not None:
            k, v = k.index_select(0, parts.keys), v.index_select(0, parts.keys)
        longest = (max(parts.sizes), max(parts.key_sizes))
        left = call.window - 1 if call.windowed and call.window is not None else -1
        return kernel(q, k, v, *parts.bounds, *longest, left, call)[None]

    return run


def flash_attention(module: str) -> Attend:
    """FlashAttention-2 or -3 as they are installed."""
    function = importlib.import_module(module).flash_attn_varlen_func

    def kernel(
        q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, n: int, m: int, left: int, c: Call
    ) -> Any:
        options = {"dropout_p": c.dropout} if c.dropout else {}  # version 3 has none
        window = (left, 0) if left >= 0 else (-1, -1)
        out = function(
            q,
            k,
            v,
            cu_q,
            cu_k,
            n,
            m,
            softmax_scale=c.scale,
            causal=True,
            window_size=window,
            **options,
        )
        return out[0] if isinstance(out, tuple) else out

    return varlen(kernel)


def torch_varlen() -> Attend:
    """PyTorch's own kernel for sequences one after another."""
    from torch.nn.attention.varlen import varlen_attn

    def kernel(
        q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, n: int, m: int, left: int, c: Call
    ) -> Any:
        if c.dropout:
            raise NotImplementedError("no dropout here")
        shared = q.shape[1] != k.shape[1]
        return varlen_attn(
            q, k, v, cu_q, cu_k, n, m, scale=c.scale, window_size=(left, 0), enable_gqa=shared
        )

    return varlen(kernel)


def flex() -> Attend:
    """FlexAttention (arXiv:2412.05496): whole blocks that nobody sees are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=True)

    @lru_cache(maxsize=4)
    def block_mask(
        table: tuple[tuple[int, int], ...], window: int | None, device: torch.device
    ) -> Any:
        part, after, within = parts_of(table, device).places

        def sees(b: Any, h: Any, i: Any, j: Any) -> Any:
            distance = within[i] - within[j]
            related = (part[i] == part[j]) | (after[i] == part[j])
            near = distance < window if window is not None else True
            return related & (distance >= 0) & near

        return create_block_mask(sees, None, None, len(part), len(part), device=device)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> torch.Tensor:
        if call.dropout:
            raise NotImplementedError("no dropout here")
        assert call.parts is not None
        mask = block_mask(call.parts, call.window if call.windowed else None, q.device)
        function: Any = compiled if q.is_cuda else flex_attention
        shared = q.shape[1] != k.shape[1]
        out = function(q, k, v, block_mask=mask, scale=call.scale, enable_gqa=shared)
        return out.transpose(1, 2)

    return run


BACK_ENDS: dict[str, Callable[[], Attend]] = {  # the fastest first
    "flash_attention_3": lambda: flash_attention("flash_attn_interface"),
    "flash_attention_2": lambda: flash_attention("flash_attn"),
    "torch_varlen": torch_varlen,
    "flex": flex,
    "parts": lambda: by_parts,
    "padded": lambda: padded,
}
HALF = ("flash_attention_3", "flash_attention_2", "torch_varlen")

# --- the choice -----------------------------------------------------------------------------------

TAKEN: set[str] = set()  # kernels that this process has attended with


def pads() -> bool:
    """Whether attention is computed over padded rows: cells that hold no token cost as well."""
    return "padded" in TAKEN


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> torch.Tensor:
    """`[1, T, H, D]` from `[1, H, T, D]`, by the fastest kernel that is right here."""
    if call.parts is None:
        return padded(q, k, v, call)
    heads = (q.shape[1], k.shape[1], q.shape[3], v.shape[3])
    return choose(q.device, q.dtype, heads, call.windowed, call.dropout > 0)(q, k, v, call)


@lru_cache
def choose(
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int, int, int],
    windowed: bool,
    dropout: bool,
) -> Attend:
    """The fastest kernel that is right for such a call; its name and the reason are logged.

    Args:
        heads: of queries and of keys, and the width of both and of values.
    """
    passed: list[str] = []
    for name in BACK_ENDS:
        reason = unfit(name, device, dtype, dropout)
        if not reason:
            try:
                kernel = BACK_ENDS[name]()
                if device.type == "cuda" and name != "padded":
                    reason = wrong(kernel, device, dtype, heads, windowed)
            except Exception as error:  # a kernel that is not built for this machine says so anyhow
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        if not reason:
            why = "; ".join(passed) or "nothing faster is known"
            logger.info("attention: %s on %s in %s (%s)", name, device.type, dtype, why)
            TAKEN.add(name)
            return kernel
        passed.append(f"{name}: {reason}")
    raise AssertionError("padded attention always fits")


def unfit(name: str, device: torch.device, dtype: torch.dtype, dropout: bool) -> str:
    """Why a kernel is not even tried, or nothing."""
    if name == "padded":
        return ""
    if (name == "parts") != (device.type == "cpu"):
        return "many small calls" if name == "parts" else f"not for {device.type}"
    if name in HALF and dtype not in (torch.float16, torch.bfloat16):
        return f"not in {dtype}"
    module = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}
    if name in module and importlib.util.find_spec(module[name]) is None:
        return "not installed"
    return "has no dropout" if dropout and name in ("torch_varlen", "flex") else ""


EXAMPLE = ((70, -1), (9, 0), (40, 0), (33, -1), (1, -1))  # a prompt with two answers; two alone


def example(device: torch.device, windowed: bool = False) -> Call:
    """A small call that has everything in it."""
    rows, back = [[*range(79)], [*range(70), *range(79, 119)], [*range(119, 152)], [152]], []
    for row, start, size in ((0, 0, 79), (1, 70, 40), (2, 0, 33), (3, 0, 1)):
        back += [row * 110 + start + i for i in range(size)]
    full = [row + [0] * (110 - len(row)) for row in rows]
    index = (torch.tensor(full, device=device), torch.tensor(back, device=device))
    return Call(index[0], index[1], EXAMPLE, window=16 if windowed else None)


def wrong(
    kernel: Attend,
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int, int, int],
    windowed: bool,
) -> str:
    """How a kernel differs from `padded` on the example, in outputs or gradients, or nothing."""
    call = example(device, windowed)
    draw = torch.Generator(device).manual_seed(0)
    shapes = [(1, heads[i], len(call.back), heads[w]) for i, w in ((0, 2), (1, 2), (1, 3))]
    inputs = [
        torch.randn(s, generator=draw, device=device, dtype=dtype).requires_grad_() for s in shapes
    ]
    answers = []
    with torch.enable_grad():
        for function in (padded, kernel):
            out = function(inputs[0], inputs[1], inputs[2], call)
            answers.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    gap = max(
        float((a.float() - b.float()).norm() / a.float().norm())
        for a, b in zip(*answers, strict=True)
    )
    limit = 1e-4 if dtype == torch.float32 else 2e-2
    return "" if gap <= limit else f"off by {gap:.1%} on a small example"
