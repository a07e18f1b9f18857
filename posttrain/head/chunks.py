"""Log-probs from a head `z = h W^T + b`, and their gradients, a few positions at a time.

Of each chunk of logits only the log-prob of its target stays and, where the gradient of the loss
is known early enough, its share of the gradients: three products of matrices, none of them twice.
It is known

- before, if the caller says what it is at each log-prob, up to one factor for all (`weights`);
- before, where the head is frozen: the gradient of the inputs, `W[target] - p W`, has one factor
  per position, which may come later;
- once the log-probs of a block of positions are (`Later`): of a pair, of a sequence. The block's
  logits are kept until then, unless they are too many;
- else in the backward pass, which computes the chunk's logits again: four products.

A head may be several such products added up: adapters on it are a second one, of low rank.

Legend: K trained positions, H width, V vocabulary, C positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import Function

from posttrain.head.precision import wide, wide_type
from posttrain.head.softmax import Form, Softmax

CHUNK = {"cpu": 2**25, "cuda": 2**27}  # logits made at a time: 128 MB, 512 MB in fp32
HELD = {"cpu": 2**26, "cuda": 2**28}  # kept until a block's gradient is known: 256 MB, 1 GB

Product = tuple[torch.Tensor, torch.Tensor]


class Answer(NamedTuple):
    """What is known of the trained tokens, `[K]` each, in fp32 or wider.

    Attributes:
        logps: log-probs of the targets, less the z-loss of their positions if there is one.
        collision: log sum_v p(v)^2, without a gradient; `None` if nobody asked.
    """

    logps: torch.Tensor
    collision: torch.Tensor | None = None


@dataclass(frozen=True)
class Later:
    """A gradient that is known as soon as the log-probs of a block of positions are.

    Attributes:
        ends: where each block ends, ascending; the last one ends with the K-th position.
        weigh: (answer of a block, its positions) -> `[k]` the gradient of the loss at each of its
            log-probs, up to one factor for all blocks. It is called without a graph.
    """

    ends: Sequence[int]
    weigh: Callable[[Answer, slice], torch.Tensor]

    def blocks(self, most: int) -> Iterator[slice]:
        """The blocks; small neighbours together, up to `most` positions."""
        start = end = 0
        for after in self.ends:
            if end > start and after - start > most:
                yield slice(start, end)
                start = end
            end = after
        if end > start:
            yield slice(start, end)


Weights = torch.Tensor | Later | None


def whole_answer(
    logits: torch.Tensor, targets: torch.Tensor, z_loss: float = 0.0, collision: bool = False
) -> Answer:
    """The same from whole `[K, V]` logits: the plain form."""
    logits = wide(logits)
    logps = -nn.functional.cross_entropy(logits, targets, reduction="none")
    if z_loss:
        logps = logps - z_loss * logits.logsumexp(-1).square()
    if not collision:
        return Answer(logps)
    with torch.no_grad():
        return Answer(logps, (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1))


def chunked_answer(
    products: Sequence[Product],
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    weights: Weights = None,
    form: Form | None = None,
    collision: bool = False,
) -> Answer:
    """The answer for logits `sum_i h_i W_i^T + b`, which are never made whole.

    Args:
        products: pairs of `[K, H_i]` inputs and `[V, H_i]` weights.
        bias: `[V]`, or `None`.
        targets: `[K]`.
        weights: `[K]` the gradient of the loss at each log-prob up to one factor, if known already,
            or how it will be known (`Later`).
        collision: whether `Answer.collision` is asked for.

    Raises:
        RuntimeError: in the backward pass, if `weights` announced another gradient.
    """
    options = (form or Form(), collision, torch.is_grad_enabled())
    tensors = [tensor for product in products for tensor in product]
    logps, found = Chunked.apply(targets, weights, options, bias, *tensors)  # type: ignore[no-untyped-call]
    return Answer(logps, found if collision else None)


class Chunked(Function):
    """Log-probs and collisions, `[K]` each; see the module's docstring for what is done when."""

    @staticmethod
    def forward(
        ctx: Any,
        targets: torch.Tensor,
        weights: Weights,
        options: tuple[Form, bool, bool],
        bias: torch.Tensor | None,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        form, collision, training = options
        needs = [need and training for need in ctx.needs_input_grad[3:]]
        frozen = not (needs[0] or any(needs[2::2]))
        early = any(needs) and (frozen or weights is not None)
        sums = Sums(bias, tensors, needs if early else [False] * len(needs))
        num, blank = len(targets), tensors[0].new_empty
        made = Answer(blank(num, dtype=sums.dtype), blank(num * collision, dtype=sums.dtype))
        known = torch.ones_like(made.logps)
        if isinstance(weights, torch.Tensor) and not frozen:
            known = weights.to(sums.dtype)
        with torch.autocast(targets.device.type, enabled=False):
            if early and not frozen and isinstance(weights, Later):
                for block in weights.blocks(sums.most):
                    in_block(sums, targets, form, made, weights, known, block)
            else:
                for part in sums.chunks():
                    soft = answered(sums, targets, form, made, part, early)
                    if early:
                        sums.add(*soft.gradient(known[part]), part)
        ctx.form, ctx.needs, ctx.early = form, needs, early
        ctx.announced = None if frozen else known
        ctx.dtypes, ctx.grads = sums.dtypes, sums.grads if early else None
        ctx.save_for_backward(*(() if early else (targets, bias, *tensors)))
        assert made.collision is not None
        ctx.mark_non_differentiable(made.collision)
        return made.logps, made.collision

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> Any:
        grad = wide(grad)
        if not ctx.early:
            return (None, None, None, *late_gradients(ctx, grad))
        if ctx.grads is None:
            raise RuntimeError("the gradients of the head were used already: no second backward")
        grads, ctx.grads = ctx.grads, None  # they are changed in place
        factor = grad[:, None] if ctx.announced is None else one_factor(grad, ctx.announced)
        return (None, None, None, *(None if g is None else g.mul_(factor) for g in grads))


def answered(
    sums: Sums, targets: torch.Tensor, form: Form, made: Answer, part: slice, training: bool
) -> Softmax:
    """One chunk's logits, with what they say written into `made`."""
    soft = Softmax(sums.logits(part, form), targets[part], form, training)
    made.logps[part] = soft.logps
    if made.collision is not None and len(made.collision):
        made.collision[part] = soft.collision()
    return soft


def in_block(
    sums: Sums,
    targets: torch.Tensor,
    form: Form,
    made: Answer,
    later: Later,
    known: torch.Tensor,
    block: slice,
) -> None:
    """A block's log-probs, then what the loss makes of them (into `known`), then its gradients."""
    parts, kept = list(sums.chunks(block)), []
    held = sums.may_hold(block, form)
    for part in parts:
        soft = answered(sums, targets, form, made, part, held)
        kept += [soft] if held else []
    collision = (
        made.collision[block] if made.collision is not None and len(made.collision) else None
    )
    known[block] = later.weigh(Answer(made.logps[block], collision), block)
    for part in parts:
        soft = kept.pop(0) if held else answered(sums, targets, form, made, part, True)
        sums.add(*soft.gradient(known[part]), part)


class Sums:
    """Logits of a head and its gradients, chunk by chunk; summed over chunks in `wide_type`.

    Args:
        bias, tensors: the bias, then inputs and weights in turn.
        needs: for each of them, whether its gradient is asked for.
        dtypes: what each product is computed in; default: as autocast says, or its inputs' type.
    """

    def __init__(
        self,
        bias: torch.Tensor | None,
        tensors: Sequence[torch.Tensor],
        needs: Sequence[bool],
        dtypes: Sequence[torch.dtype] | None = None,
    ) -> None:
        inputs, weights = tensors[0::2], tensors[1::2]
        self.dtypes = dtypes or [product_type(x) for x in inputs]
        self.inputs = [x.to(d) for x, d in zip(inputs, self.dtypes, strict=True)]
        self.weights = [w.to(d) for w, d in zip(weights, self.dtypes, strict=True)]
        self.dtype = dtype = wide_type(self.dtypes[0])  # of logits, and of sums
        self.bias = None if bias is None else bias.to(self.dtype)
        self.positions, vocabulary = len(inputs[0]), len(weights[0])
        self.free: list[torch.Tensor] = []  # memory of chunks that are done with
        kind = inputs[0].device.type if inputs[0].device.type in CHUNK else "cpu"
        self.most, self.held = (max(1, size[kind] // vocabulary) for size in (CHUNK, HELD))
        self.db = torch.zeros_like(self.bias) if needs[0] and self.bias is not None else None
        self.dh = [
            torch.empty_like(x) if n else None for x, n in zip(inputs, needs[1::2], strict=True)
        ]
        blank = torch.empty_like if self.positions else torch.zeros_like
        self.dw = [
            blank(w, dtype=dtype) if n else None for w, n in zip(weights, needs[2::2], strict=True)
        ]
        self.kinds = [None if t is None else t.dtype for t in (bias, *tensors)]

    def chunks(self, block: slice | None = None) -> Iterator[slice]:
        """Chunks of all positions or of a block, even ones: no small last chunk."""
        begin, end = (block.start, block.stop) if block else (0, self.positions)
        num = max(1, -(-(end - begin) // self.most))
        rows = max(1, -(-(end - begin) // num))
        for start in range(begin, end, rows):
            yield slice(start, min(start + rows, end))

    def may_hold(self, block: slice, form: Form) -> bool:
        """Whether a block's logits are few enough to be kept; capped ones are kept twice."""
        return (block.stop - block.start) * (1 if form.cap is None else 2) <= self.held

    def logits(self, part: slice, form: Form) -> torch.Tensor:
        """`[C, V]` final logits, widened, where possible in the memory of an earlier chunk.

        Fresh memory costs a page fault every 4 KB, as much as a fifth of the product on a CPU.
        """
        x, w = self.inputs[0][part], self.weights[0].t()
        used = self.free.pop() if self.free else None
        if used is None or x.dtype != self.dtype or len(used) < len(x):
            z = torch.mm(x, w).to(self.dtype)
        else:
            z = torch.mm(x, w, out=used[: len(x)])
        for x, w in zip(self.inputs[1:], self.weights[1:], strict=True):
            z = z.addmm_(x[part], w.t()) if x.dtype == z.dtype else z.add_(x[part] @ w.t())
        if self.bias is not None:
            z += self.bias
        return form.final_(z)

    def add(self, dz: torch.Tensor, factor: torch.Tensor, part: slice) -> None:
        """The share of one chunk, from the gradient at its raw logits; its memory is free then.

        Args:
            dz: `[C, V]`, and
            factor: `[C, 1]` that its rows are to be multiplied by.
        """
        if any(dtype != self.dtype for dtype in self.dtypes):
            dz, factor = dz.mul_(factor), torch.ones_like(factor)  # rounded once, not twice
        if self.db is not None:
            self.db.addmv_(dz.t(), factor[:, 0])
        for x, w, dh, dw in zip(self.inputs, self.weights, self.dh, self.dw, strict=True):
            if dh is None and dw is None:
                continue
            d = dz.to(w.dtype)
            if dh is not None:
                dh[part] = (d @ w).mul_(factor)
            if dw is None:
                continue
            if d.dtype == self.dtype:  # the first chunk writes, the others add
                dw.addmm_(d.t(), x[part] * factor, beta=int(part.start > 0))
            elif part.start == 0:
                dw.copy_(d.t() @ x[part])
            else:
                dw += d.t() @ x[part]
        self.free.append(dz)

    @property
    def grads(self) -> list[torch.Tensor | None]:
        made = [self.db, *(d for pair in zip(self.dh, self.dw, strict=True) for d in pair)]
        return [None if d is None else d.to(k) for d, k in zip(made, self.kinds, strict=True)]


def product_type(inputs: torch.Tensor) -> torch.dtype:
    """What `inputs @ W` is computed in."""
    at = inputs.device.type
    return torch.get_autocast_dtype(at) if torch.is_autocast_enabled(at) else inputs.dtype


def late_gradients(ctx: Any, grad: torch.Tensor) -> list[torch.Tensor | None]:
    """Gradients from logits that are computed again, when those of the log-probs are known."""
    targets, bias, *tensors = ctx.saved_tensors
    sums = Sums(bias, tensors, ctx.needs, ctx.dtypes)
    with torch.autocast(targets.device.type, enabled=False):
        for part in sums.chunks():
            soft = Softmax(sums.logits(part, ctx.form), targets[part], ctx.form, True)
            sums.add(*soft.gradient(grad[part]), part)
    return sums.grads


def one_factor(grad: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The factor between the gradient that came and the one that was announced.

    One that is not finite passes: it makes all gradients NaN, which the trainers' guard sees.

    Raises:
        RuntimeError: they are not multiples of each other (on a GPU: a device-side assertion).
    """
    factor = (grad * weights).sum() / weights.square().sum().clamp(min=1e-30)
    if not len(grad):
        return factor
    gap = (grad - factor * weights).abs().amax()
    same = (gap <= 1e-4 * grad.abs().amax()) | ~factor.isfinite()
    torch._assert_async(
        same, "the loss is no multiple of the weighted sum of log-probs that `weights` announced"
    )
    return factor
