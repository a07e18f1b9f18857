"""(completion, ground_truth) -> Verdict(score, reason). RL rewards and evaluation share them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from posttrain.errors import PosttrainError, VerifierError
from posttrain.formats import SEVERAL, Row, Verdict
from posttrain.verifiers.base import Verifier
from posttrain.verifiers.gsm8k import GSM8K
from posttrain.verifiers.ifeval import IFEval, loose_variants
from posttrain.verifiers.ifeval_old import IFEvalOld
from posttrain.verifiers.math import Math
from posttrain.verifiers.several import Several
from posttrain.verifiers.string_match import StringMatch

__all__ = [
    "ALIASES",
    "VERIFIERS",
    "Verifier",
    "check_problem",
    "get_verifier",
    "loose_variants",
    "verify",
]

VERIFIERS: dict[str, Verifier] = {
    "gsm8k": GSM8K(),
    "ifeval": IFEval(),
    "ifeval_old": IFEvalOld(),
    "math": Math(),
    "string_match": StringMatch(),
}

ALIASES = {"string_matcher": "string_match"}


def get_verifier(name: str) -> Verifier:
    """The verifier of a name, in any case; names joined by `+` are all asked (see several.py).

    Raises:
        VerifierError: there is none of that name.
    """
    if SEVERAL in str(name):
        return Several(tuple(get_verifier(part) for part in str(name).split(SEVERAL)))
    key = ALIASES.get(str(name).lower(), str(name).lower())
    if key not in VERIFIERS:
        near = difflib.get_close_matches(key, [*VERIFIERS, *ALIASES], n=1, cutoff=0.0)
        raise VerifierError(
            f"unknown verifier {name!r}; did you mean {near[0]!r}? Known: {', '.join(VERIFIERS)}"
        )
    return VERIFIERS[key]


def verify(name: str, completion: Any, ground_truth: Any, **row: Any) -> Verdict:
    """The verdict of a named verifier; a completion that it fails on scores 0 with the reason.

    Raises:
        VerifierError: the verifier is unknown or cannot read the ground truth.
    """
    verifier = get_verifier(name)
    if not isinstance(completion, str):
        verifier.check_ground_truth(ground_truth)
        return Verdict(0.0, f"the completion is not text but {type(completion).__name__}")
    try:
        return verifier(completion, ground_truth, **row)
    except PosttrainError:
        raise
    except Exception as error:  # one odd completion must not end a run
        return Verdict(0.0, f"{name} failed on the completion: {type(error).__name__}: {error}")


def check_problem(row: Row, remap: Mapping[str, str]) -> Row:
    """A problem whose verifier exists and can read its ground truth.

    Args:
        remap: verifier names in the data -> names here.

    Raises:
        VerifierError: it does not, or cannot.
    """
    names = [remap.get(name, name) for name in row["verifier"].split(SEVERAL)]
    row = {**row, "verifier": SEVERAL.join(names)}
    get_verifier(row["verifier"]).check_ground_truth(row["ground_truth"])
    return row
