"""rewards -> advantages. One file per paper; the recipe's names stand in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.advantages.base import GroupMethod, TokenMethod
from posttrain.advantages.gae import GAE
from posttrain.advantages.group import GroupAdvantage
from posttrain.advantages.leave_one_out import LeaveOneOut
from posttrain.advantages.macro_gae import MacroGAE
from posttrain.advantages.reinforce_plus_plus import ReinforcePlusPlus
from posttrain.advantages.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline
from posttrain.errors import build

ADVANTAGES: dict[str, type[GroupMethod] | type[TokenMethod]] = {
    "group": GroupAdvantage,
    "leave_one_out": LeaveOneOut,
    "gae": GAE,
    "macro_gae": MacroGAE,
    "reinforce_plus_plus": ReinforcePlusPlus,
    "reinforce_plus_plus_baseline": ReinforcePlusPlusBaseline,
}


def advantage(spec: Mapping[str, Any] | str) -> Any:
    """The advantage that `{name: ..., option: ...}` names: a group or a token method.

    `per_token` of the result says which, and so how it is called (see `advantages.base`).
    """
    return build("advantage", ADVANTAGES, spec)
