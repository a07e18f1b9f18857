"""log-probs -> loss. One file per paper; the names of the recipe stand in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import RecipeError, build
from posttrain.losses.apo_down import APODown
from posttrain.losses.apo_zero import APOZero
from posttrain.losses.base import PolicyLoss, PreferenceLoss
from posttrain.losses.bradley_terry import BradleyTerry
from posttrain.losses.cispo import CISPO
from posttrain.losses.dapo import DAPO
from posttrain.losses.discopop import DiscoPOP
from posttrain.losses.dpo import DPO
from posttrain.losses.dr_grpo import DrGRPO
from posttrain.losses.grpo import GRPO
from posttrain.losses.gspo import GSPO
from posttrain.losses.hinge import Hinge
from posttrain.losses.importance import CORRECTIONS
from posttrain.losses.ipo import IPO
from posttrain.losses.kl_control import AdaptiveKL, FixedKL
from posttrain.losses.ld_dpo import LDDPO
from posttrain.losses.mixture import Mixture
from posttrain.losses.nll import NLL
from posttrain.losses.ppo import PPO
from posttrain.losses.reinforce import Reinforce
from posttrain.losses.robust import RobustDPO
from posttrain.losses.sapo import SAPO
from posttrain.losses.simpo import SimPO
from posttrain.losses.value import ValueLoss
from posttrain.losses.wpo import WPO

PREFERENCE_LOSSES: dict[str, type[PreferenceLoss]] = {
    "dpo": DPO,
    "ipo": IPO,
    "hinge": Hinge,
    "robust": RobustDPO,
    "simpo": SimPO,
    "wpo": WPO,
    "apo_zero": APOZero,
    "apo_down": APODown,
    "discopop": DiscoPOP,
    "ld_dpo": LDDPO,
    "nll": NLL,
    "mixture": Mixture,
}

POLICY_LOSSES: dict[str, type[PolicyLoss]] = {
    "grpo": GRPO,
    "ppo": PPO,
    "dr_grpo": DrGRPO,
    "dapo": DAPO,
    "cispo": CISPO,
    "gspo": GSPO,
    "sapo": SAPO,
    "reinforce": Reinforce,
}

KL_CONTROLLERS: dict[str, type[FixedKL]] = {
    "fixed": FixedKL,
    "adaptive": AdaptiveKL,
}

VALUE_LOSSES = {
    "clipped": ValueLoss,
}

REWARD_LOSSES = {
    "bradley_terry": BradleyTerry,
}


def preference_loss(spec: Mapping[str, Any] | str) -> PreferenceLoss:
    """The preference loss that `{name: ..., option: ...}` names; a mixture's members too."""
    if isinstance(spec, Mapping) and spec.get("name") == "mixture":
        spec = {**spec, "losses": members(spec.get("losses"))}
    loss: PreferenceLoss = build("preference loss", PREFERENCE_LOSSES, spec)
    return loss


def members(specs: Any) -> list[tuple[float, PreferenceLoss]]:
    """Weight and loss of each `{name: ..., weight: ..., option: ...}` of a mixture."""
    if not isinstance(specs, Sequence) or isinstance(specs, str):
        raise RecipeError(
            f"preference loss 'mixture': losses must be a list, as [{{name: dpo, weight: 0.8}}, "
            f"{{name: nll, weight: 0.2}}]; got {specs!r}"
        )
    made = []
    for spec in specs:
        if not isinstance(spec, str | Mapping):
            raise RecipeError(
                f"preference loss 'mixture': {spec!r} is no loss; write {{name: ...}}"
            )
        options = {"name": spec} if isinstance(spec, str) else dict(spec)
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise RecipeError(f"preference loss 'mixture': weight must be a number, got {weight!r}")
        made.append((float(weight), preference_loss(options)))
    return made


def policy_loss(spec: Mapping[str, Any] | str) -> PolicyLoss:
    """The policy loss that `{name: ..., option: ...}` names, and the correction in it."""
    if isinstance(spec, Mapping) and spec.get("importance") is not None:
        correction = build("importance correction", CORRECTIONS, spec["importance"])
        spec = {**spec, "importance": correction}
    loss: PolicyLoss = build("policy loss", POLICY_LOSSES, spec)
    return loss


def kl_controller(spec: Mapping[str, Any] | str) -> FixedKL:
    """The controller of a KL penalty's weight that `{name: ..., option: ...}` names."""
    controller: FixedKL = build("KL controller", KL_CONTROLLERS, spec)
    return controller


def value_loss(spec: Mapping[str, Any] | str) -> ValueLoss:
    """The value loss that `{name: clipped, option: ...}` names."""
    loss: ValueLoss = build("value loss", VALUE_LOSSES, spec)
    return loss


def reward_loss(spec: Mapping[str, Any]) -> BradleyTerry:
    """The reward-model loss that `{name: ..., option: ...}` names."""
    loss: BradleyTerry = build("reward loss", REWARD_LOSSES, spec)
    return loss
