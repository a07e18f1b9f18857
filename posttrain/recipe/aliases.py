"""Peers' spellings and short forms, rewritten to ours before anything is read."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.keys import Key, aliases, keys
from posttrain.recipe.nodes import Faults, Node, join
from posttrain.recipe.source import Source
from posttrain.recipe.spec import Recipe
from posttrain.recipe.stages import STAGES
from posttrain.recipe.values import shown


def normalise(root: Node, faults: Faults) -> dict[str, str]:
    """Rewrite a recipe's tree in place; returns the peers' spellings met, old -> new."""
    rewriter = _Rewriter(faults)
    rewriter.block(Recipe, root, "")
    return rewriter.renamed


class _Rewriter:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.renamed: dict[str, str] = {}

    def block(self, cls: type, node: Node, path: str) -> None:
        """Rewrite one block: its keys first, then the short forms of its values."""
        if not isinstance(node.value, dict):
            return
        self.rename(cls, node, path)
        for name, key in keys(cls).items():
            child = node.value.get(name)
            if child is None or child.value is None:
                continue
            here = join(path, name)
            if cls is Recipe and name == "stages":
                self.stages(child, here)
            elif key.block:
                self.blocks(key.block, key, child, here)
            elif key.method and isinstance(child.value, str):
                child.value = {"name": child.near(child.value)}  # loss: dpo

    def rename(self, cls: type, node: Node, path: str) -> None:
        for old, new in aliases(cls).items():
            if old not in node.value:
                continue
            given = node.value.pop(old)
            self.renamed[old] = new
            if new == "datasets":
                given = self.mixer(old, given, join(path, old))
            kept = node.value.setdefault(new, given)
            if not _same(kept.plain(), given.plain()):
                where = f", line {kept.line}" if kept.line else ""
                self.faults.at(
                    join(path, old),
                    given,
                    f"got {shown(given)}, but it means the same as `{new}`"
                    f" ({shown(kept)}{where}); remove one of them",
                )

    def stages(self, node: Node, path: str) -> None:
        for i, item in enumerate(node.value if isinstance(node.value, list) else []):
            if not isinstance(item.value, dict):
                continue
            for kind, body in item.value.items():
                if body.value is None:
                    body.value = {}
                if kind in STAGES:
                    self.block(STAGES[kind], body, f"{path}[{i}].{kind}")

    def blocks(self, cls: type, key: Key, node: Node, path: str) -> None:
        if not key.is_list:
            if isinstance(node.value, list):  # eval: [gsm8k, ifeval]
                first_list = next(k.name for k in keys(cls).values() if k.is_list)
                node.value = {first_list: node.near(node.value)}
            self.block(cls, node, path)
            return
        first = next(iter(keys(cls)))
        for i, item in enumerate(node.value if isinstance(node.value, list) else []):
            if isinstance(item.value, str):  # a bare text is the entry's first key
                item.value = {first: item.near(item.value)}
            self.block(cls, item, f"{path}[{i}]")

    def mixer(self, old: str, node: Node, path: str) -> Node:
        """open-instruct's mixers: `[name, amount, ...]` or `{name: amount}` -> entries."""
        items = node.value
        if isinstance(items, dict) and isinstance(inner := items.get("datasets"), Node):
            return inner  # alignment-handbook: dataset_mixture: {datasets: [...]}
        if isinstance(items, dict):
            pairs = [(node.near(name), amount) for name, amount in items.items()]
        elif not isinstance(items, list) or any(isinstance(n.value, dict) for n in items):
            return node
        elif len(items) % 2:
            self.faults.at(path, node, f"must alternate name and amount, got {len(items)} entries")
            return node.near([])
        else:
            pairs = list(zip(items[::2], items[1::2], strict=True))
        return node.near([self.mixed(name, amount, path) for name, amount in pairs])

    def mixed(self, name: Node, amount: Node, path: str) -> Node:
        entry = {"path": name}
        text = str(amount.value)
        try:
            taken = _amount(text)
        except ValueError:
            self.faults.at(
                path,
                amount,
                f"got the amount {text!r} for {name.value!r}; must be a whole number of rows"
                " (500), or with a point a share of them (0.5, 1.0 for all, 3.0 for three passes)",
            )
        else:
            entry |= {key: amount.near(value) for key, value in taken.items()}
        return name.near(entry)


def _amount(text: str) -> dict[str, Any]:
    if "." not in text:
        rows = int(text)
        if rows < 1:
            raise ValueError(text)
        return {"num_samples": rows}
    share = float(text)
    if not 0 < share < float("inf"):
        raise ValueError(text)
    if share == 1:
        return {}
    return {"fraction": share} if share < 1 else {"repeat": share}


def _same(one: Any, other: Any) -> bool:
    try:
        return one == other or float(one) == float(other)
    except (TypeError, ValueError):
        return False


def rivals(name: str) -> set[str]:
    """The keys that say the same thing as `name` in another way."""
    groups = (("max_steps", "num_train_epochs"), ("warmup_steps", "warmup_ratio"), Source.EXCLUSIVE)
    return {rival for group in groups if name in group for rival in group if rival != name}
