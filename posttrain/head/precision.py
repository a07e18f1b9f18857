"""In which type log-probs and losses are computed: float32 at least, and float64 for a model in it.

Half precision is widened. A float64 model is nothing to train with; it is what shows that two ways
to compute a gradient are one formula, where float32 leaves room for its rounding.
"""

from __future__ import annotations

import torch


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type itself, if it is float32 or wider, else float32."""
    return torch.promote_types(dtype, torch.float32)


def wide(values: torch.Tensor) -> torch.Tensor:
    """The values in `wide_type` of their own type."""
    return values.to(wide_type(values.dtype))
