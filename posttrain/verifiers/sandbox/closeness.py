"""The part of numpy that tests in EvalPlus' form (Liu et al. 2023, arXiv:2305.01210) ask for.

A jail has no numpy. They ask whether numbers are close, and whether a value is an array, which no
plain data is.
"""

from __future__ import annotations

import types
from typing import Any


class ndarray:
    """An array; nothing that crosses from the completion is one."""


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether two numbers differ by at most `atol + rtol * |b|`."""
    return bool(a == b or abs(a - b) <= atol + rtol * abs(b))


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether all numbers of two sequences of one shape are close; one number goes with each.

    Raises:
        ValueError: the shapes differ.
    """
    sequences = isinstance(a, list | tuple), isinstance(b, list | tuple)
    if not any(sequences):
        return isclose(a, b, rtol, atol)
    length = len(a if sequences[0] else b)
    left, right = (v if s else [v] * length for v, s in zip((a, b), sequences, strict=True))
    if len(left) != len(right):
        raise ValueError(f"{len(left)} values cannot be compared with {len(right)}")
    return all(allclose(x, y, rtol, atol) for x, y in zip(left, right, strict=True))


def numpy() -> types.ModuleType:
    """The module that `import numpy` gives the tests."""
    module = types.ModuleType("numpy", __doc__)
    vars(module).update(
        ndarray=ndarray, float32=float, float64=float, isclose=isclose, allclose=allclose
    )
    return module
