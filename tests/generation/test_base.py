"""What a sampling may be."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import RecipeError
from posttrain.generation.base import Completion, Sampling


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_new_tokens", 0), ("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1)],
)
def test_what_cannot_be_sampled_is_refused(field: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"{field}: {value} must be"):
        Sampling(**{field: value})


def test_answers_are_compared_by_their_tokens() -> None:
    assert Completion([5, 1], True, [-1.0, -0.5]) == Completion([5, 1], True)
    assert Completion([5, 1], True) != Completion([5, 1], False)
