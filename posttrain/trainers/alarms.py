"""Curves of RL that look like trouble, each seen by one small function and told once.

A function reads what was logged so far, the newest entry last, and answers the likely cause, or
`None`. Thresholds are wide on purpose: what is told here is meant to be looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, pstdev

History = Sequence[Mapping[str, float]]
BEFORE = 10  # entries that a newest one is compared with, at least
FEW = 3  # entries in a row that make a state of it
logger = logging.getLogger(__name__)


def series(history: History, name: str) -> list[float]:
    """The values that were logged under a name, in order."""
    return [float(entry[name]) for entry in history if name in entry]


def reward_spike(history: History) -> str | None:
    """The reward is 6 deviations above the last ones: hardly by learning."""
    *before, last = series(history, "reward") or [0.0]
    if len(before) < BEFORE:
        return None
    recent = before[-BEFORE:]
    centre, spread = fmean(recent), pstdev(recent)
    if last <= centre + 6 * max(spread, 0.01 * max(map(abs, recent)), 1e-6):
        return None
    return (
        f"the reward jumped to {last:.3g} from {centre:.3g}: the policy may have found a hole in a "
        "verifier; read the newest rollouts"
    )


def kl_blow_up(history: History) -> str | None:
    """The KL is above 0.1 a token and 10 times what it was."""
    *before, last = series(history, "kl") or [0.0]
    if len(before) < BEFORE or last <= 0.1 or last <= 10 * median(before[-BEFORE:]):
        return None
    return (
        f"the KL is {last:.3g} a token, 10 times what it was: the policy runs away from its start; "
        "lower learning_rate, raise beta, or look at grad_norm and clip_share"
    )


def all_truncated(history: History) -> str | None:
    """No completion ends."""
    last = series(history, "truncated")[-FEW:]
    if len(last) < FEW or min(last) < 1:
        return None
    return (
        "every completion was cut off: max_completion_length is too short, or the model does not "
        "know its EOS (a base model, or another chat template); see samples.txt"
    )


def all_zero(history: History) -> str | None:
    """No completion is right, so that no group teaches anything."""
    last = series(history, "pass_rate")[-FEW:]
    spread = series(history, "useful_groups")[-FEW:] or [0.0]
    if len(last) < FEW or max(last) > 0 or max(spread) > 0:
        return None
    return (
        "no completion passes and no group has a spread: the problems are too hard for the model, "
        "or the verifier does not find its answers; read the rollouts, start from easier problems"
    )


def length_collapse(history: History) -> str | None:
    """Completions are a quarter as long as they were at their longest."""
    lengths = series(history, "completion_length")
    if len(lengths) < BEFORE or lengths[-1] > max(lengths) / 4:
        return None
    return (
        f"completions are {lengths[-1]:.3g} tokens long, once {max(lengths):.3g}: the reward may "
        "favour short ones, or missing_eos_reward weighs more than the answer"
    )


ALARMS: tuple[Callable[[History], str | None], ...] = (
    reward_spike,
    kl_blow_up,
    all_truncated,
    all_zero,
    length_collapse,
)


class Alarms:
    """Tells every trouble once."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, history: History) -> None:
        for alarm in ALARMS:
            name = alarm.__name__
            if name not in self.told and (cause := alarm(history)):
                self.told.add(name)
                logger.warning("%s at step %s: %s", name, history[-1].get("step", "?"), cause)
