"""SFT, DPO, reward models and RLVR, driven by one recipe. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "DPOConfig": "posttrain.trainers.dpo",
    "DPOTrainer": "posttrain.trainers.dpo",
    "RLVRConfig": "posttrain.trainers.rlvr",
    "RLVRTrainer": "posttrain.trainers.rlvr",
    "Recipe": "posttrain.recipe",
    "RewardConfig": "posttrain.trainers.reward",
    "RewardTrainer": "posttrain.trainers.reward",
    "SFTConfig": "posttrain.trainers.sft",
    "SFTTrainer": "posttrain.trainers.sft",
    "Verdict": "posttrain.formats",
    "build_mixture": "posttrain.mixture",
    "get_verifier": "posttrain.verifiers",
    "run": "posttrain.pipeline",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'posttrain' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
