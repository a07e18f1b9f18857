"""The recipe's `decontaminate:` key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from posttrain.decontamination.match import check
from posttrain.decontamination.prompts import Fields
from posttrain.errors import DataError, Fault, RecipeError, nearest

ACTIONS = ("drop_rows", "drop_set", "report", "error")


@dataclass(frozen=True)
class Against:
    """An evaluation file beside the tasks of the recipe, and which of its fields are the prompt."""

    path: str
    fields: Fields = "prompt"


@dataclass(frozen=True)
class Decontamination:
    """What is looked for in the training rows, and what happens to those that hold it.

    Attributes:
        mode: `ngram`, `exact` or `embedding`.
        n: words of an n-gram; 8 is Tülu 3's rule, 13 that of GPT-3 and OPT-IML.
        threshold: least overlap (or cosine); 0 in mode `ngram`: any shared n-gram.
        dataset_threshold: share of an evaluation's rows above which a source is contaminated.
        action: `drop_rows` that match, `drop_set`: contaminated sources as a whole, `report`
            only, or `error`: a contaminated source stops the run.
        against: evaluation files that are compared besides the recipe's tasks.
        fields: what is read of a training row: `prompt`, `all`, or names of fields.
        embed: mode `embedding`: `lexical`, or the hub id or folder of a model.
    """

    mode: str = "ngram"
    n: int = 8
    threshold: float = 0.5
    dataset_threshold: float = 0.02
    action: str = "drop_rows"
    against: tuple[Against, ...] = ()
    fields: Fields = "prompt"
    embed: str = "lexical"


def read_settings(spec: bool | Mapping[str, Any]) -> Decontamination | None:
    """The settings that a recipe gives: `true` is the default, `false` is `None`.

    Raises:
        RecipeError: every unknown key, and the first value that makes no sense.
    """
    if isinstance(spec, bool):
        return Decontamination() if spec else None
    known = [field.name for field in fields(Decontamination)]
    faults = [
        Fault(f"decontaminate.{name}", f"unknown key{nearest(str(name), known)}")
        for name in spec
        if name not in known
    ]
    given = {name: value for name, value in spec.items() if name in known}
    try:
        given["against"] = tuple(_against(given.get("against", ())))
        made = Decontamination(**given)
        _check(made)
        if not isinstance(made.fields, str):
            made = Decontamination(**{**given, "fields": tuple(made.fields)})
    except DataError as error:
        faults.append(Fault("decontaminate", str(error)))
    if faults:
        raise RecipeError(faults)
    return made


def _against(value: Any) -> list[Against]:
    """A path, a list of paths, or of mappings {path, fields}."""
    items = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(items, Sequence):
        raise DataError(f"`against` must be a list of files, got {value!r}")
    found = []
    for item in items:
        one = {"path": item} if isinstance(item, str) else item
        if not isinstance(one, Mapping) or "path" not in one or set(one) - {"path", "fields"}:
            raise DataError(f"`against` must hold files or {{path, fields}}, got {item!r}")
        wanted = one.get("fields", "prompt")
        _check_fields("against: fields", wanted)
        found.append(Against(str(one["path"]), wanted if wanted == "prompt" else tuple(wanted)))
    return found


def _check(made: Decontamination) -> None:
    check(made.mode, made.n, made.threshold)
    share = made.dataset_threshold
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise DataError(f"`dataset_threshold` must be a number from 0 to 1, got {share!r}")
    if made.action not in ACTIONS:
        raise DataError(f"unknown action {made.action!r}{nearest(str(made.action), ACTIONS)}")
    if not isinstance(made.embed, str) or not made.embed:
        raise DataError(f"`embed` must be `lexical` or a model, got {made.embed!r}")
    _check_fields("fields", made.fields, "prompt", "all")


def _check_fields(name: str, value: Any, *words: str) -> None:
    if isinstance(value, str):
        ok = value in (words or ("prompt",))
    else:
        ok = isinstance(value, Sequence) and bool(value) and all(isinstance(f, str) for f in value)
    if not ok:
        allowed = " or ".join(f"`{word}`" for word in words or ("prompt",))
        raise DataError(f"`{name}` must be {allowed} or a list of field names, got {value!r}")
