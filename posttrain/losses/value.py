"""PPO's clipped value loss (Schulman et al. 2017, arXiv:1707.06347; clipping as in its code).

    loss_t = 1/2 max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2)

where R is the return and V_old the value at the rollout. A value that has already gone further
than `clip` towards its return gets no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ValueLoss:
    """clip 0.2 and coefficient 0.1 are Tülu 3's; `clip: null` is the plain squared error."""

    clip: float | None = 0.2
    coefficient: float = 0.1

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip: got {self.clip}; the value loss needs clip > 0 or null")
        if not self.coefficient > 0:
            raise ValueError(f"coefficient: got {self.coefficient}; it must be above 0")

    def __call__(
        self, values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor
    ) -> torch.Tensor:
        """Loss per token, times the coefficient; all `[K]`."""
        losses = (values - returns).square()
        if self.clip is not None:
            near = old + (values - old).clamp(-self.clip, self.clip)
            losses = torch.maximum(losses, (near - returns).square())
        return self.coefficient / 2 * losses
