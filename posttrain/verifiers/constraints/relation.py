"""How a count is compared with the number that a constraint names."""

from __future__ import annotations


def holds(count: int, relation: str, threshold: int, slack: int = 0) -> bool:
    """Whether `count` is `relation` the threshold; `around` allows `slack` to either side."""
    if relation == "at least":
        return count >= threshold
    if relation == "less than":
        return count < threshold
    if relation == "at most":
        return count <= threshold
    if relation == "around":
        return abs(count - threshold) <= slack
    raise ValueError(f"unknown relation {relation!r}")


def tenth(threshold: int) -> int:
    """The slack of `around` for words: 10%, at least 1."""
    return max(round(threshold * 0.1), 1)
