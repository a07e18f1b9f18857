"""YAML file + overrides -> `Recipe`. All faults of a file are reported at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import yaml

from posttrain.errors import RecipeError
from posttrain.recipe.aliases import normalise
from posttrain.recipe.blocks import read_block
from posttrain.recipe.checks import check_recipe
from posttrain.recipe.keys import aliases, keys, nearest
from posttrain.recipe.layers import merge_recipes
from posttrain.recipe.nodes import Faults, Node, parse
from posttrain.recipe.overrides import apply_overrides
from posttrain.recipe.spec import Recipe
from posttrain.recipe.stages import STAGES


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, stage: str | None = None
) -> Recipe:
    """Read a recipe file, the one it extends, and overrides of the form `path=value`.

    Args:
        path: the YAML file.
        overrides: such as `stages.sft.learning_rate=1e-5`; see `parse_override_args`.
        stage: the stage that a short key (`learning_rate=1e-5`) means.

    Raises:
        RecipeError: with every fault found; nothing is half loaded.
    """
    path, faults = Path(path), Faults()
    root = _read(path, faults)
    renamed = normalise(root, faults)
    if extends := root.value.pop("extends", None):
        root = _extend(root, extends, path, faults, renamed)
    renamed |= apply_overrides(root, overrides, stage, faults)
    block = read_block(Recipe, root, "", faults)
    check_recipe(block)
    if faults:
        raise RecipeError(faults.in_order(), origin=str(path))
    if renamed:
        pairs = ", ".join(f"{old} -> {new}" for old, new in renamed.items())
        warnings.warn(f"{path}: other tools' spellings, read as ours: {pairs}", stacklevel=2)
    return block.build()


def _read(path: Path, faults: Faults, origin: str = "") -> Node:
    """The tree of a file that is at least shaped like a recipe."""

    def refuse(why: str) -> RecipeError:
        return RecipeError(f"{path} is not a posttrain recipe: {why}")

    try:
        root = parse(path.read_text(encoding="utf-8"), faults, origin)
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")])
        raise refuse(
            f"there is no such file{f'; did you mean {path.parent / near}?' if near else ''}"
        ) from None
    except OSError as error:
        raise refuse(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise refuse("it is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise refuse(_not_yaml(error)) from error
    if root is None or root.value is None:
        raise refuse("it is empty")
    if not isinstance(root.value, dict):
        kind = "a list" if isinstance(root.value, list) else "a single value"
        raise refuse(f"it is {kind}, not a mapping of keys such as `name:` and `stages:`")
    if "stages" not in root.value and "extends" not in root.value:
        if advice := _flat(root):
            raise refuse(f"it has no `stages`; {advice}")
        if "name" not in root.value:
            raise refuse("it has neither `name` nor `stages`")
    return root


def _not_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1} " if mark else "it "
    return f"{where}is not YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"


def _flat(root: Node) -> str:
    """Advice for the one-stage files of other tools, whose stage keys stand at the top level."""
    named = [root.value[key].value for key in ("stage", "trainer") if key in root.value]
    kind = next((name for name in named if isinstance(name, str) and name in STAGES), None)
    stage_keys = {
        name: "" for cls in STAGES.values() for name in (*keys(cls), *aliases(cls))
    }.keys() - {*keys(Recipe), *aliases(Recipe)}
    loose = [name for name in root.value if name in stage_keys]
    if not loose and not kind:
        return ""
    shown = ", ".join(loose[:4]) + (", ..." if len(loose) > 4 else "")
    moved = f" ({shown})" if loose else ""
    return f"put the stage's keys{moved} under `stages: [{{{kind or 'sft'}: {{...}}}}]`"


def _extend(root: Node, extends: Node, path: Path, faults: Faults, renamed: dict[str, str]) -> Node:
    """Lay `root` over the recipe that its `extends` names."""
    if not isinstance(extends.value, str):
        faults.at("extends", extends, "must be the path of one recipe, relative to this file")
        return root
    try:
        base = _read(path.parent / extends.value, faults, origin=extends.value)
    except RecipeError as error:
        faults.at("extends", extends, str(error))
        return root
    if further := base.value.pop("extends", None):
        message = f"{extends.value} extends {further.value}; only one level is allowed"
        faults.at("extends", extends, f"{message}: copy the keys of one into the other")
    renamed |= normalise(base, faults)
    return merge_recipes(base, root, faults)
