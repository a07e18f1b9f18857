"""YAML text -> a tree whose every value still knows its line, and the list that collects faults."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import yaml

from posttrain.errors import Fault

COMMAND_LINE = "from the command line"


@dataclass
class Node:
    """One value of a recipe and where it was written.

    Attributes:
        value: a scalar, a list of nodes, or a dict from key to node.
        line: 1-based line of its key (of itself, in a list).
        origin: empty for the recipe itself, else the extended file or the command line.
        quoted: a text that was written in quotes.
    """

    value: Any
    line: int | None = None
    origin: str = ""
    quoted: bool = False

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def has(self, name: str) -> bool:
        """Whether this mapping gives `name` a value; null is none."""
        return name in self.value and self.value[name].value is not None

    def near(self, value: Any) -> Node:
        """A node made of this one, standing where it stands."""
        return Node(value, self.line, self.origin)


class Faults(list[Fault]):
    """Every fault found so far, in the order of the file once sorted."""

    def at(self, path: str, node: Node, message: str) -> None:
        """Record a fault of the value at `path`."""
        if not node.origin:
            self.append(Fault(path, message, node.line))
        else:
            where = f"{node.origin}, line {node.line}" if node.line else node.origin
            self.append(Fault(path, f"{message} ({where})"))

    def in_order(self) -> list[Fault]:
        """Sorted by line; those without a line last."""
        return sorted(self, key=lambda fault: fault.line or 10**9)


def join(path: str, name: str) -> str:
    """`stages[0]` and `sft` -> `stages[0].sft`."""
    return f"{path}.{name}" if path else name


def parse(text: str, faults: Faults, origin: str = "") -> Node | None:
    """Read YAML text; `None` when it holds nothing.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else _Composer(loader, faults, origin).read(root, "")
    finally:
        loader.dispose()


class _Composer:
    """Turns PyYAML's nodes into ours; a key given twice and a key that is no text are faults."""

    def __init__(self, loader: yaml.SafeLoader, faults: Faults, origin: str) -> None:
        self.loader, self.faults, self.origin = loader, faults, origin
        self.seen: dict[int, Node | None] = {}

    def read(self, raw: yaml.Node, path: str) -> Node:
        if id(raw) in self.seen:  # an anchor used again: a copy, so that no two places share a node
            seen = self.seen[id(raw)]
            if seen is None:
                raise yaml.constructor.ConstructorError(
                    None, None, "an anchor contains itself", raw.start_mark
                )
            return copy.deepcopy(seen)
        self.seen[id(raw)] = None
        node = self.node(None, raw)
        if isinstance(raw, yaml.MappingNode):
            node.value = self.mapping(raw, path)
        elif isinstance(raw, yaml.SequenceNode):
            node.value = [self.read(item, f"{path}[{i}]") for i, item in enumerate(raw.value)]
        else:
            node.value, node.quoted = self.scalar(raw), getattr(raw, "style", None) is not None
        self.seen[id(raw)] = node
        return node

    def node(self, value: Any, raw: yaml.Node) -> Node:
        line = None if self.origin == COMMAND_LINE else raw.start_mark.line + 1
        return Node(value, line, self.origin)

    def scalar(self, raw: yaml.Node) -> Any:
        if raw.tag == "tag:yaml.org,2002:timestamp":  # a revision or a name may look like a date
            return raw.value
        return self.loader.construct_object(raw)

    def mapping(self, raw: yaml.MappingNode, path: str) -> dict[str, Node]:
        first: dict[str, int] = {}
        for key, _ in raw.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in first:
                self.faults.at(
                    join(path, key.value),
                    self.node(None, key),
                    f"given twice (first on line {first[key.value]}); keep one of them",
                )
            else:
                first[key.value] = key.start_mark.line + 1
        self.loader.flatten_mapping(raw)  # `<<: *anchor`; own keys come last and so win
        out: dict[str, Node] = {}
        for key, value in raw.value:
            name = self.scalar(key) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                message = f"a key must be text, got {shown}; put it in quotes"
                self.faults.at(path, self.node(None, key), message)
                continue
            out[name] = self.read(value, join(path, name))
            out[name].line = self.node(None, key).line
        return out
