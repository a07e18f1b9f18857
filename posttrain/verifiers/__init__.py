"""(completion, ground_truth) -> Verdict(score, reason). RL rewards and evaluation share them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from posttrain.errors import PosttrainError, VerifierError
from posttrain.formats import SEVERAL, Generate, Row, Verdict
from posttrain.verifiers.base import Verifier
from posttrain.verifiers.code import Code
from posttrain.verifiers.composed import Composed
from posttrain.verifiers.function import Function, from_path
from posttrain.verifiers.gsm8k import GSM8K
from posttrain.verifiers.ifbench import IFBench
from posttrain.verifiers.ifeval import IFEval, loose_variants
from posttrain.verifiers.ifeval_old import IFEvalOld
from posttrain.verifiers.json_schema import JsonSchema
from posttrain.verifiers.judge import Judge
from posttrain.verifiers.math import Math
from posttrain.verifiers.multiple_choice import MultipleChoice
from posttrain.verifiers.regex import Regex
from posttrain.verifiers.sandbox.host import Limits
from posttrain.verifiers.several import Several
from posttrain.verifiers.string_match import StringMatch

__all__ = [
    "ALIASES",
    "UNVERIFIED",
    "VERIFIERS",
    "Verifier",
    "check_problem",
    "compose",
    "get_verifier",
    "loose_variants",
    "use_judge",
    "verify",
]

VERIFIERS: dict[str, Verifier] = {
    "code": Code(),
    "gsm8k": GSM8K(),
    "ifbench": IFBench(),
    "ifeval": IFEval(),
    "ifeval_old": IFEvalOld(),
    "json_schema": JsonSchema(),
    "judge": Judge(),
    "math": Math(),
    "multiple_choice": MultipleChoice(),
    "regex": Regex(),
    "string_match": StringMatch(),
}

ALIASES = {"mcq": "multiple_choice"}
UNVERIFIED = "reward_funcs"  # in a verifier's place: other functions reward the row

# The same verifiers with other settings.
VARIANTS: dict[str, Verifier] = {
    "ifeval_old_release": IFEvalOld(strict_compat=True),
    "string_matcher": StringMatch(tagged=True),
    "ifeval_whole": IFEval(whole=True),
}

_COMPOSING = ("weights", "gate", "own")


def get_verifier(name: str) -> Verifier:
    """The verifier of a name, in any case; names joined by `+` are all asked (see several.py).

    Raises:
        VerifierError: there is none of that name.
    """
    if SEVERAL in str(name):
        return Several(tuple(get_verifier(part) for part in str(name).split(SEVERAL)))
    key = ALIASES.get(str(name).lower(), str(name).lower())
    if key in VARIANTS:
        return VARIANTS[key]
    if key not in VERIFIERS:
        near = difflib.get_close_matches(key, [*VERIFIERS, *ALIASES], n=1, cutoff=0.0)
        raise VerifierError(
            f"unknown verifier {name!r}; did you mean {near[0]!r}? Known: {', '.join(VERIFIERS)}"
        )
    return VERIFIERS[key]


def use_judge(generate: Generate) -> None:
    """Let the verifier `judge` ask this model: conversations in, texts out."""
    VERIFIERS["judge"] = Judge(generate)


def compose(spec: str | Callable[..., Any] | Mapping[str, Any]) -> Verifier:
    """A verifier from a name, a function, or a mapping of parts (see composed.py).

    Functions are named in mappings alone, never by a row of data: whoever writes the data would
    choose what is run.

    Args:
        spec: in a mapping, `weights` and `gate` (part -> part) speak of the other entries;
            `{name: code, partial: true}` is one verifier with settings,
            `{function: "module:name"}` a Python function.

    Raises:
        VerifierError: a part is unknown, or a weight or gate names none.
    """
    if isinstance(spec, str):
        return get_verifier(spec)
    if isinstance(spec, Verifier):
        return spec
    if not isinstance(spec, Mapping):
        return Function(spec)
    if set(spec) == {"function"}:
        return from_path(spec["function"])
    if isinstance(spec.get("name"), str) and spec["name"] in VERIFIERS:
        return _with_settings(spec["name"], {k: v for k, v in spec.items() if k != "name"})
    parts = {name: compose(part) for name, part in spec.items() if name not in _COMPOSING}
    if not parts:
        raise VerifierError(f"no verifier in {dict(spec)}; write a name and what it is")
    return Composed(
        parts,
        dict(spec.get("weights") or {}),
        dict(spec.get("gate") or {}),
        frozenset(spec.get("own") or ()),
    )


def _with_settings(name: str, settings: Mapping[str, Any]) -> Verifier:
    verifier: Any = VERIFIERS[name]
    known = {field.name for field in dataclasses.fields(verifier)}
    if unknown := set(settings) - known:
        raise VerifierError(
            f"{name} has no setting {sorted(unknown)}; it has: {', '.join(sorted(known)) or 'none'}"
        )
    if isinstance(settings.get("limits"), Mapping):
        settings = {**settings, "limits": Limits(**settings["limits"])}
    return dataclasses.replace(verifier, **settings)


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
    """A problem whose verifier exists and can read its ground truth; unverified ones pass.

    Args:
        remap: verifier names in the data -> names here.

    Raises:
        VerifierError: it does not, or cannot.
    """
    if row["verifier"] == UNVERIFIED:
        return row
    names = [remap.get(name, name) for name in row["verifier"].split(SEVERAL)]
    row = {**row, "verifier": SEVERAL.join(names)}
    get_verifier(row["verifier"]).check_ground_truth(row["ground_truth"])
    return row
