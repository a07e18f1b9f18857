"""The whole work in order; several processes share it in tests/launch/test_commands.py."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.evals.spread import spread


def double(part: Sequence[int]) -> list[int]:
    return [2 * item for item in part]


def test_one_process_does_all_of_it() -> None:
    assert spread([5, 1, 3], double) == [10, 2, 6]
    assert spread(range(3), double) == [0, 2, 4]
    assert spread([], double) == []
