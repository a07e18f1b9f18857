"""How adapters read the fields of a raw row."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.sources.adapters.base import dice, items, joined, maybe_text, text


def test_text() -> None:
    assert text({"a": "x"}, "a") == "x"
    assert text({"a": 7}, "a") == "7"
    assert [maybe_text({"a": nothing}, "a") for nothing in (None, float("nan"), "")] == ["", "", ""]
    assert maybe_text({}, "a") == ""


@pytest.mark.parametrize("found", [None, True, 1.5, ["x"], {"a": 1}])
def test_what_is_not_text(found: Any) -> None:
    with pytest.raises(DataError, match="needs text in `a`"):
        text({"a": found}, "a")


def test_the_reason_is_the_same_for_rows_that_fail_alike() -> None:
    reasons = set()
    for raw in ({"a": 1.5, "b": 1}, {"a": None}):
        with pytest.raises(DataError) as caught:
            text(raw, "a")
        reasons.add(str(caught.value).split(", got ")[0])
    assert len(reasons) == 1


def test_lists() -> None:
    assert items({"a": (1, 2)}, "a") == [1, 2]
    for found in ([], None, "ab", {"b": 1}):
        with pytest.raises(DataError, match="needs a list"):
            items({"a": found}, "a")


def test_dice_are_decided_by_their_parts_alone() -> None:
    assert dice(1, "a").random() == Random("1/a").random() != dice(1, "b").random()
    assert dice(1, "\ud800").random() != dice(1, "\ud801").random()  # no UTF-8, and no error


def test_joined_fields() -> None:
    assert joined({"a": "x", "b": " ", "c": "z"}, ("a", "b", "c")) == "x\n\nz"
    with pytest.raises(DataError):
        joined({"b": "x"}, ("a", "b"))
