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
from posttrain.errors import RecipeError, build

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


def group_advantage(spec: Mapping[str, Any] | str) -> GroupMethod:
    """The same, for a trainer that credits whole completions.

    Raises:
        RecipeError: it credits tokens, which `RLVRTrainer` does not do yet.
    """
    made = advantage(spec)
    if made.per_token:
        name = spec if isinstance(spec, str) else spec.get("name")
        known = ", ".join(name for name, kind in ADVANTAGES.items() if not kind.per_token)
        raise RecipeError(
            f"advantage {name!r} credits every token, which RLVRTrainer does not do yet; choose one"
            f" of {known}"
        )
    return made
