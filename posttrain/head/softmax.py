"""Chunks of logits in place: what a model does to them, their log-probs, and the way back.

Legend: C positions of a chunk, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

TILE = 2**19  # logits that a CPU turns into probabilities at a time: 2 MB stay in its caches


@dataclass(frozen=True)
class Form:
    """What a model does to `h W^T + b` before the softmax: `cap * tanh(scale * z / cap) / T`.

    Attributes:
        scale: factor of the logits (Cohere, Granite).
        cap: bound of the logits (Gemma 2, arXiv:2408.00118, section 2.3), or `None`.
        temperature: the logits are divided by it, last.
        z_loss: c of the z-loss `c * lse^2`, lse the logarithm of the softmax's denominator (PaLM,
            arXiv:2204.02311, section 5); it is taken off each log-prob.
    """

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0
    z_loss: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the model leaves the logits as they are."""
        return self.scale == 1 and self.cap is None

    def after(self, z: torch.Tensor) -> torch.Tensor:
        """What the model itself makes of raw logits, before any temperature."""
        z = z * self.scale
        return z if self.cap is None else torch.tanh(z / self.cap) * self.cap

    def final_(self, z: torch.Tensor) -> torch.Tensor:
        """Raw logits to final ones, in place."""
        if self.cap is None:
            factor = self.scale / self.temperature
            return z if factor == 1 else z.mul_(factor)
        return z.mul_(self.scale / self.cap).tanh_().mul_(self.cap / self.temperature)

    def slope(self, z: torch.Tensor) -> torch.Tensor | float:
        """Derivative of the final logits `z` with respect to the raw ones."""
        factor = self.scale / self.temperature
        if self.cap is None:
            return factor
        return (1 - (z * (self.temperature / self.cap)).square()).mul_(factor)


class Softmax:
    """One chunk of final logits `z` `[C, V]`, which it changes in place: first the log-probs, then,
    if asked, the gradient at the raw logits. So a chunk is read as few times as may be: memory is
    slow, and a head's products are only as wide as the model.

    Attributes:
        logps: `[C]` log-probs of the targets, less the z-loss.
    """

    def __init__(self, z: torch.Tensor, targets: torch.Tensor, form: Form, training: bool) -> None:
        self.form, self.index = form, targets[:, None]
        self.slope = form.slope(z) if training else 1.0
        at_target = z.gather(1, self.index)
        top, self.total = torch.empty_like(at_target), torch.empty_like(at_target)
        rows = max(1, TILE // z.shape[1]) if z.device.type == "cpu" else max(1, len(z))
        for tile, most, sums in zip(
            *(torch.split(x, rows) for x in (z, top, self.total)), strict=True
        ):
            torch.amax(tile, 1, keepdim=True, out=most)
            torch.sum(tile.sub_(most).exp_(), 1, keepdim=True, out=sums)
        self.z, self.lse = z, top + self.total.log()
        logps = at_target - top - self.total.log()
        self.logps = (logps - form.z_loss * self.lse.square() if form.z_loss else logps)[:, 0]

    def collision(self) -> torch.Tensor:
        """`[C]` log sum_v p(v)^2."""
        return 2 * (torch.linalg.vector_norm(self.z, dim=1).log() - self.total[:, 0].log())

    def gradient(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the sum of the log-probs times their weights `[C]`; the logits are gone.

        Returns:
            `[C, V]`, and a factor `[C, 1]` of each row: it is cheaper in a product of the rows.
        """
        share = (1 + 2 * self.form.z_loss * self.lse) / self.total  # of exp(z), per weight
        dz = self.z.scatter_add_(1, self.index, -1 / share)
        factor = -weights[:, None] * share
        if isinstance(self.slope, torch.Tensor):
            return dz.mul_(self.slope), factor
        return dz, factor * self.slope
