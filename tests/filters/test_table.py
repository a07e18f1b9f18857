"""Filters by the names that recipes use."""

from __future__ import annotations

import pytest

from posttrain.errors import RecipeError
from posttrain.filters import FILTERS, get_filters


def test_names_and_mappings() -> None:
    filters = get_filters(["empty_turns", {"name": "exact_duplicates"}])
    assert [type(rule) for rule in filters] == list(FILTERS.values())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("empty_turn", "unknown filter 'empty_turn'; did you mean 'empty_turns'?"),
        ({"name": "empty_turns", "least": 3}, "filter 'empty_turns' has no option 'least'"),
        ({}, "unknown filter None"),
    ],
)
def test_unknown_filters(spec: object, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_filters([spec])
    assert says in str(caught.value)
