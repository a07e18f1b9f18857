"""Nodes -> the frozen dataclasses of spec.py, recording every fault on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from posttrain.recipe.keys import Key, aliases, keys, nearest
from posttrain.recipe.nodes import Faults, Node, join
from posttrain.recipe.source import Source
from posttrain.recipe.spec import Eval, Recipe, Task
from posttrain.recipe.stages import STAGES, Stage
from posttrain.recipe.values import BAD, read_value, shown

_TITLES = {Recipe: "a recipe", Source: "a source", Eval: "`eval`", Task: "a task"}


@dataclass
class Block:
    """One block being read.

    Attributes:
        cls: the dataclass it will be.
        path: where it stands, as `stages[0].sft`.
        values: what could be read so far.
        children: the blocks inside, by key.
    """

    cls: type
    path: str
    node: Node
    faults: Faults
    values: dict[str, Any] = field(default_factory=dict)
    children: dict[str, list[Block]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of a stage; empty for other blocks."""
        return getattr(self.cls, "kind", "")

    @property
    def given(self) -> Mapping[str, Node]:
        """What the user wrote, other than null."""
        items = self.node.value.items() if isinstance(self.node.value, dict) else ()
        return {name: node for name, node in items if node.value is not None}

    def get(self, name: str) -> Any:
        """A key's value, given or default; `BAD` when it is wrong or missing."""
        if name in self.values:
            return self.values[name]
        default = keys(self.cls)[name].default
        return BAD if default is MISSING or name in self.given else default

    def fault(self, name: str, message: str) -> None:
        """Record a fault of one key; it stands at the block when the key is not given."""
        self.faults.at(join(self.path, name), self.given.get(name, self.node), message)

    def build(self) -> Any:
        """The frozen dataclass, or `BAD` when something is missing or wrong."""
        whole = all(self.get(name) is not BAD for name in keys(self.cls))
        return self.cls(**self.values) if whole else BAD


def read_block(cls: type, node: Node, path: str, faults: Faults) -> Block:
    """Read every key of a block, recording what is unknown, missing or wrong."""
    block = Block(cls, path, node, faults)
    if not isinstance(node.value, dict):
        faults.at(path, node, f"got {shown(node)}; must be a mapping of keys to values")
        return block
    for name, child in node.value.items():
        here = join(path, name)
        if (key := keys(cls).get(name)) is None:
            faults.at(here, child, _unknown(cls, name))
        elif (value := _read_key(block, key, child, here)) is not BAD:
            block.values[name] = value
    for key in keys(cls).values():
        if key.default is MISSING and key.name not in node.value:
            faults.at(join(path, key.name), node, f"is missing; give {key.wants()}: {key.help}")
    return block


def _read_key(block: Block, key: Key, node: Node, path: str) -> Any:
    if key.block is None or node.value is None or key.is_list != isinstance(node.value, list):
        return read_value(key, node, path, block.faults)
    if not key.is_list:
        child = read_block(key.block, node, path, block.faults)
        block.children[key.name] = [child]
        return child.build()
    entries = [
        _read_stage(item, f"{path}[{i}]", block.faults)
        if key.block is Stage
        else read_block(key.block, item, f"{path}[{i}]", block.faults)
        for i, item in enumerate(node.value)
    ]
    block.children[key.name] = [entry for entry in entries if entry is not None]
    built = tuple(entry.build() if entry else BAD for entry in entries)
    return BAD if BAD in built else built


def _read_stage(item: Node, path: str, faults: Faults) -> Block | None:
    """An entry of `stages`; `None` when it does not say which kind it is."""
    kinds = ", ".join(STAGES)
    if not isinstance(item.value, dict) or len(item.value) != 1:
        given = item.value if isinstance(item.value, dict) else {}
        known = [kind for kind in given if kind in STAGES]
        loose = ", ".join(name for name in given if name not in STAGES)
        advice = f"; indent {loose} under `{known[0]}:`" if len(known) == 1 else ""
        got = f"the keys {', '.join(given)}" if given else shown(item)
        message = f"got {got}; a stage is one mapping {{kind: {{...}}}}, its kind among {kinds}"
        faults.at(path, item, message + advice)
        return None
    [(kind, body)] = item.value.items()
    if kind not in STAGES:
        near = nearest(kind, STAGES)
        advice = f"; did you mean {near}?" if near else ""
        message = f"`{kind}` is no kind of stage; the kinds are {kinds}{advice}"
        faults.at(join(path, kind), item, message)
        return None
    return read_block(STAGES[kind], body, join(path, kind), faults)


def _title(cls: type) -> str:
    return _TITLES.get(cls) or f"{getattr(cls, 'kind', '')} stages"


def _unknown(cls: type, name: str) -> str:
    """Says where an unknown key belongs, or which known one it resembles."""
    stage = issubclass(cls, Stage)
    message = f"`{name}` is not a key of {_title(cls)}"
    kinds = [kind for kind, other in STAGES.items() if {name} & {*keys(other), *aliases(other)}]
    if kinds and stage:
        return f"{message} but of {' and '.join(kinds)}; remove it, or move it to such a stage"
    if kinds and cls is Recipe:
        kind = "sft" if "sft" in kinds else kinds[0]
        return f"{message} but of a stage; move it into `stages: [{{{kind}: {{...}}}}]`"
    if stage and name in keys(Recipe):
        return f"{message} but of the recipe; move it to the top level"
    known = {**{key: key for key in keys(cls)}, **aliases(cls)}
    if near := nearest(name, known):
        return f"{message}; did you mean `{known[near]}`?"
    if len(keys(cls)) <= 15:
        return f"{message}; its keys are {', '.join(keys(cls))}"
    return f"{message}; docs/recipes.md lists them all"
