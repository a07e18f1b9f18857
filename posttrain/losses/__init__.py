"""log-probs -> loss. One file per paper; the names of the recipe stand in the two tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.errors import build
from posttrain.losses.dpo import DPO
from posttrain.losses.grpo import GRPO

PREFERENCE_LOSSES = {
    "dpo": DPO,
}

POLICY_LOSSES = {
    "grpo": GRPO,
}


def preference_loss(spec: Mapping[str, Any]) -> Any:
    """The preference loss that `{name: ..., option: ...}` names."""
    return build("preference loss", PREFERENCE_LOSSES, spec)


def policy_loss(spec: Mapping[str, Any]) -> Any:
    """The policy loss that `{name: ..., option: ...}` names."""
    return build("policy loss", POLICY_LOSSES, spec)
