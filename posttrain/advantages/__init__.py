"""rewards of a group -> advantages. One file per paper; the recipe's names stand in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.advantages.group import GroupAdvantage
from posttrain.errors import build

ADVANTAGES = {
    "group": GroupAdvantage,
}


def advantage(spec: Mapping[str, Any]) -> Any:
    """The advantage that `{name: ..., option: ...}` names."""
    return build("advantage", ADVANTAGES, spec)
