from __future__ import annotations

import pytest

from posttrain.verifiers.sandbox.closeness import allclose, isclose, numpy


def test_as_numpy_has_it() -> None:
    real = pytest.importorskip("numpy")
    for a, b in ((1.0, 1.000009), (1.0, 1.1), (1e-9, 0.0), (1e-7, 0.0), (float("inf"),) * 2):
        assert isclose(a, b) == bool(real.isclose(a, b))
        assert allclose([a, a], [b, b]) == real.allclose([a, a], [b, b])
        assert allclose([[a], [b]], b) == real.allclose([[a], [b]], b)


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 values cannot be compared with 1"):
        allclose([1.0, 2.0], [1.0])


def test_the_module_has_what_it_promises_and_no_more() -> None:
    module = numpy()
    assert not isinstance([1.0], module.ndarray)
    assert not hasattr(module, "zeros")
