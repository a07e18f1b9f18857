"""`Recipe` -> plain data and YAML, every key written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from posttrain.recipe.keys import keys
from posttrain.recipe.spec import Recipe
from posttrain.recipe.stages import Stage
from posttrain.recipe.values import is_number_text


def to_dict(obj: Any) -> Any:
    """A recipe, or a part of one, as plain data in the order of its declaration."""
    if is_dataclass(obj):
        plain = {field.name: to_dict(getattr(obj, field.name)) for field in fields(obj)}
        return {obj.kind: plain} if isinstance(obj, Stage) else plain
    if isinstance(obj, Mapping):
        return {name: to_dict(value) for name, value in obj.items()}
    return [to_dict(value) for value in obj] if isinstance(obj, (list, tuple)) else obj


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults included, loadable again."""
    plain = to_dict(recipe)
    for entry, stage in zip(plain["stages"], recipe.stages, strict=True):
        default = keys(type(stage))["num_train_epochs"].default
        if stage.max_steps is not None and stage.num_train_epochs == default:
            del entry[stage.kind]["num_train_epochs"]  # the steps decide; both would contradict
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text that looks like 5e-6 is quoted, or it would come back as a number."""
    style = "'" if is_number_text(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
