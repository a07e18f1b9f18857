"""Command-line overrides: `stages.sft.learning_rate=1e-5` or `--learning_rate 1e-5`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from posttrain.errors import Fault, RecipeError
from posttrain.recipe.aliases import normalise
from posttrain.recipe.keys import aliases, canonical, keys, nearest
from posttrain.recipe.layers import put, stage_of
from posttrain.recipe.nodes import COMMAND_LINE, Faults, Node, parse
from posttrain.recipe.spec import Eval, Recipe
from posttrain.recipe.stages import STAGES


def parse_override_args(argv: list[str]) -> list[str]:
    """Bring both spellings into `path=value`; a flag without a value means true.

    Raises:
        RecipeError: an argument that is neither.
    """
    out, faults, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        path, equals, value = word.removeprefix("--").partition("=")
        if not path or path.startswith("-") or not (equals or word.startswith("--")):
            message = f"got {word!r}; an override is written key=value, --key value or --key=value"
            faults.append(Fault("", message))
            continue
        if word.startswith("--"):
            path = _underscored(path)
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        out.append(f"{path}={value}")
    if faults:
        raise RecipeError(faults, origin="command line")
    return out


def _underscored(path: str) -> str:
    parts = path.split(".")
    kept = 1 if parts[0] == "stages" else None  # a stage's own name may hold a hyphen
    return ".".join(p if i == kept else p.replace("-", "_") for i, p in enumerate(parts))


def apply_overrides(
    root: Node, overrides: Sequence[str], stage: str | None, faults: Faults
) -> dict[str, str]:
    """Write overrides into a recipe's tree. `stage` is the one that short keys mean.

    Returns:
        The peers' spellings met, old -> new.
    """
    bodies, renamed = _bodies(root), dict[str, str]()
    if stage is not None and stage not in bodies:
        faults.append(Fault("", f"there is no stage `{stage}`; stages: {', '.join(bodies)}"))
        return renamed
    for text in overrides:
        path, equals, value = text.partition("=")
        place = Node(None, None, COMMAND_LINE)
        if not equals or not all(path.split(".")):
            faults.at("", place, f"got {text!r}; an override is written key=value")
            continue
        try:
            node = parse(value, faults, COMMAND_LINE) or place
        except yaml.YAMLError:
            faults.at(path, place, f"got {value!r}, which is not YAML; put it in quotes")
            continue
        if segments := _full_path(path.split("."), bodies, stage, faults):
            _write(root, bodies, segments, node, faults)
            renamed |= normalise(root, faults)  # before the next one, which may build on it
    return renamed


def _bodies(root: Node) -> dict[str, tuple[type, Node]]:
    """Class and body of every readable stage, by name."""
    stages = root.value.get("stages")
    out = {}
    for item in stages.value if stages and isinstance(stages.value, list) else []:
        name, kind, body = stage_of(item)
        if kind in STAGES and isinstance(body.value, dict):
            out[name] = (STAGES[kind], body)
    return out


def _full_path(
    segments: list[str],
    bodies: Mapping[str, tuple[type, Node]],
    stage: str | None,
    faults: Faults,
) -> list[str] | None:
    """Complete a short key; `None` after recording why it cannot be."""
    key, text = segments[0], ".".join(segments)
    place = Node(None, None, COMMAND_LINE)
    if canonical(Recipe, key) in keys(Recipe):
        return segments
    homes = [name for name, (cls, _) in bodies.items() if canonical(cls, key) in keys(cls)]
    if stage is not None and stage in homes:
        return ["stages", stage, *segments]
    spellings = [["stages", name, *segments] for name in homes]
    if key in keys(Eval) and not any(key in keys(bodies[name][0]) for name in homes):
        spellings.append(["eval", *segments])
    if len(spellings) == 1 and (stage is None or not homes):
        return spellings[0]
    if spellings:
        why = f"is not a key of stage `{stage}`" if stage else "could mean more than one key"
        full = " or ".join(".".join(spelling) for spelling in spellings)
        faults.at(text, place, f"`{key}` {why}; write {full}")
        return None
    known = {*keys(Recipe), *aliases(Recipe), *keys(Eval)}
    for cls, _ in bodies.values():
        known |= {*keys(cls), *aliases(cls)}
    near = nearest(key, sorted(known))
    advice = f"; did you mean `{near}`?" if near else "; docs/recipes.md lists every key"
    faults.at(text, place, f"`{key}` is not a key of this recipe{advice}")
    return None


def _write(
    root: Node,
    bodies: Mapping[str, tuple[type, Node]],
    segments: list[str],
    value: Node,
    faults: Faults,
) -> None:
    cls: type | None = Recipe
    node, text, rest = root, ".".join(segments), list(segments)
    if rest[0] == "stages" and len(rest) > 1:
        if rest[1] not in bodies:
            near = nearest(rest[1], bodies)
            advice = f"; did you mean `{near}`?" if near else ""
            message = f"there is no stage `{rest[1]}`; stages: {', '.join(bodies)}{advice}"
            faults.at(text, value, message)
            return
        if len(rest) == 2:
            faults.at(text, value, "names a whole stage; set one of its keys")
            return
        cls, node = bodies[rest[1]]
        rest = rest[2:]
    while len(rest) > 1:
        child, cls = _step(node, rest.pop(0), cls)
        if child is None:
            faults.at(text, value, f"`{'.'.join(segments[: -len(rest)])}` is not there to change")
            return
        node = child
    name = canonical(cls, rest[0]) if cls else rest[0]
    if isinstance(node.value, dict):
        put(node.value, name, value)
        if name != rest[0]:  # a peer's spelling replaces ours, and is rewritten with its value
            node.value[rest[0]] = node.value.pop(name)
    elif isinstance(node.value, list) and _index(node, name) is not None:
        node.value[int(name)] = value
    else:
        faults.at(text, value, f"`{text}` is not there to change")


def _step(node: Node, segment: str, cls: type | None) -> tuple[Node | None, type | None]:
    """One segment deeper: the child, and the class it is read as."""
    if isinstance(node.value, list):
        place = _index(node, segment)
        return (None if place is None else node.value[place]), cls
    if not isinstance(node.value, dict):
        return None, None
    name = canonical(cls, segment) if cls else segment
    key = keys(cls).get(name) if cls else None
    if not node.has(name):
        if key and key.is_list:
            return None, None
        node.value[name] = Node({}, None, COMMAND_LINE)
    return node.value[name], key.block if key else None


def _index(node: Node, segment: str) -> int | None:
    return int(segment) if segment.isdecimal() and int(segment) < len(node.value) else None
