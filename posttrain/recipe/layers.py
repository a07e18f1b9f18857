"""A recipe laid over the one it extends: later layers win, key by key."""

from __future__ import annotations

from posttrain.recipe.aliases import rivals
from posttrain.recipe.nodes import Faults, Node


def merge(low: Node, high: Node) -> Node:
    """`high` over `low`: mappings merge, anything else is replaced."""
    both = isinstance(low.value, dict) and isinstance(high.value, dict)
    if not both or _names_another(low, high):
        return high
    return _lay(low, high)


def _lay(low: Node, high: Node) -> Node:
    merged = dict(low.value)
    for name, node in high.value.items():
        put(merged, name, merge(merged[name], node) if name in merged else node)
    return high.near(merged)


def put(block: dict[str, Node], name: str, node: Node) -> None:
    """Set a key; what a lower layer said in another way (epochs, for steps) gives way to it."""
    for rival in rivals(name) & block.keys():
        if node.value is not None and block[rival].origin != node.origin:
            del block[rival]
    block[name] = node


def merge_recipes(low: Node, high: Node, faults: Faults) -> Node:
    """Like `merge`, but stages are matched by their names; new ones come last."""
    merged = _lay(low, high)
    below, above = low.value.get("stages"), high.value.get("stages")
    if below and above and isinstance(below.value, list) and isinstance(above.value, list):
        merged.value["stages"] = above.near(_stages(below.value, above.value, faults))
    return merged


def _stages(low: list[Node], high: list[Node], faults: Faults) -> list[Node]:
    out = list(low)
    places = {stage_of(item)[0]: i for i, item in enumerate(low)}
    for i, item in enumerate(high):
        name, kind, body = stage_of(item)
        place = places.get(name) if name else None
        if place is None:
            out.append(item)
            continue
        _, kind_below, body_below = stage_of(low[place])
        if kind == kind_below:
            out[place] = item.near({kind: merge(body_below, body)})
        else:
            message = f"stage `{name}` is a {kind_below} stage in the extended recipe; rename it"
            faults.at(f"stages[{i}].{kind}", item, message)
    return out


def stage_of(item: Node) -> tuple[str, str, Node]:
    """Name, kind and body of an entry of `stages`; empty texts when it is none."""
    if not isinstance(item.value, dict) or len(item.value) != 1:
        return "", "", item
    [(kind, body)] = item.value.items()
    named = isinstance(body.value, dict) and body.has("name")
    name = body.value["name"].value if named else kind
    return str(name), kind, body


def _names_another(low: Node, high: Node) -> bool:
    """{name: simpo} over {name: dpo, beta: 5}: another method does not inherit its options."""
    if not (low.has("name") and high.has("name")):
        return False
    return low.value["name"].value != high.value["name"].value
