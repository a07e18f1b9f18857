"""The JSON schema that lets editors complete and check recipes.

`python -m posttrain.recipe.schema` writes `recipes/schema.json` and `docs/recipes.md` anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from posttrain.recipe.dump import to_dict
from posttrain.recipe.keys import Key, keys
from posttrain.recipe.reference import reference
from posttrain.recipe.source import Source
from posttrain.recipe.spec import Eval, Recipe, Task
from posttrain.recipe.stages import STAGES, Stage

_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}
_DEFINED = {Source: "source", Eval: "eval", Task: "task"}


def json_schema() -> dict[str, Any]:
    """The schema of a recipe file. Required keys are the loader's: `extends` may give them."""
    extends = {"type": "string", "description": "Recipe that this one is laid over; one level."}
    stage = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {
            kind: {"description": _doc(cls), "$ref": f"#/$defs/{kind}"}
            for kind, cls in STAGES.items()
        },
    }
    defined = {name: _block(cls) for cls, name in _DEFINED.items()}
    defined |= {kind: _block(cls) for kind, cls in STAGES.items()}
    root = _block(Recipe)
    root["properties"]["extends"] = extends
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "posttrain recipe",
        **root,
        "anyOf": [{"required": ["name", "stages"]}, {"required": ["extends"]}],
        "$defs": {"stage": stage, **defined},
    }


def _doc(cls: type) -> str:
    return (cls.__doc__ or "").splitlines()[0]


def _block(cls: type) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key in keys(cls).values():
        properties[key.name] = {"description": key.help, **_key(key)}
        if key.default is not MISSING and key.default is not None:
            properties[key.name]["default"] = to_dict(key.default)
    for key in keys(cls).values():
        for alias in key.aliases:
            properties[alias] = {"description": f"Means `{key.name}`.", "deprecated": True}
    return {
        "description": _doc(cls),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _key(key: Key) -> dict[str, Any]:
    options = [_type(hint) for hint in key.types]
    if key.choices:
        options = [{"enum": list(key.choices)}]
    bounds = {
        "exclusiveMinimum": key.above,
        "minimum": key.at_least,
        "maximum": key.at_most,
    }
    options[0] |= {word: bound for word, bound in bounds.items() if bound is not None}
    if key.method:
        options.append({"type": "string"})
    if key.block is Eval:
        options.append({"type": "array", "items": {"$ref": "#/$defs/task"}})
    if key.optional:
        options.append({"type": "null"})
    return options[0] if len(options) == 1 else {"anyOf": options}


def _type(hint: Any) -> dict[str, Any]:
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return {"type": "array", "items": _entry(args[0])}
    if origin is Mapping and args[1] is str:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {"$ref": f"#/$defs/{_DEFINED[hint]}"} if hint in _DEFINED else {"type": "object"}


def _entry(item: Any) -> dict[str, Any]:
    """The schema of a list's entries; a source and a task may be a bare text."""
    if item is Stage:
        return {"$ref": "#/$defs/stage"}
    if item in _DEFINED:
        return {"anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{_DEFINED[item]}"}]}
    return {} if item is Any else _type(item)


def generated() -> dict[str, str]:
    """The text of every file made from spec.py, by its path in the repository."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    return {"recipes/schema.json": schema, "docs/recipes.md": reference()}


if __name__ == "__main__":
    for name, text in generated().items():
        (Path(__file__).parents[2] / name).write_text(text, encoding="utf-8")
