"""OpenAssistant: trees of messages become conversations (arXiv:2304.07327)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import PLACE, LeftOut
from posttrain.sources.chunks import BadRow

SPEAKERS = {"prompter": "user", "assistant": "assistant"}
Node = dict[str, Any]  # a message and its `replies`


@dataclass(frozen=True)
class OASST:
    r"""OpenAssistant/oasst1: one message a row, the rows of a tree together; or one tree a row.

        {"message_id": "6ab24d72…", "parent_id": null, "message_tree_id": "6ab24d72…", "lang": "en",
         "role": "prompter", "text": "Can you write a short introduction about the relevance …",
         "deleted": false, "rank": null, …}
        {"message_id": "c8e83833…", "parent_id": "6ab24d72…", "message_tree_id": "6ab24d72…",
         "role": "assistant", "text": "\"Monopsony\" refers to a market …", "rank": 0, …}

        {"message_tree_id": "4d1e7e40…", "tree_state": "ready_for_export", "prompt": {
          "role": "prompter", "text": "How many days until christmas?", "lang": "en", "replies": [
          {"role": "assistant", "text": "Today's date is the 5th of February 2023. So there …",
           "rank": 0, "replies": […], …}, …], …}}

    A path runs from the first message to an answer that has no further answers below it. Deleted
    messages, and what hangs on them, are skipped.

    Attributes:
        paths: `all` of a tree (Tülu 1), or `best`: the replies of best rank all the way (Tülu 2).
        lang: only trees whose first message is in this language, as `en`.
    """

    paths: str = "all"
    lang: str | None = None

    def __post_init__(self) -> None:
        if self.paths not in ("all", "best"):
            raise ValueError(f"paths must be all or best, got {self.paths!r}")

    def __call__(self, rows: Iterable[Any]) -> Iterator[Row | DataError]:
        """Conversations in the order of the trees; what cannot be read as an error in its place."""
        for roots, faults in trees(rows):
            yield from faults
            for root in roots:
                yield from self.conversations(root)

    def conversations(self, root: Node) -> Iterator[Row | DataError]:
        if root.get("deleted"):
            yield LeftOut("the first message of the tree is deleted")
            return
        if self.lang and root.get("lang") != self.lang:
            yield LeftOut(f"the tree is in another language, got {shown(root.get('lang'))}")
            return
        seen: list[list[dict[str, str]]] = []
        for path in walk(root, best=self.paths == "best"):
            while path and path[-1]["role"] != "assistant":
                path = path[:-1]  # a question that nobody answered
            if path and path not in seen:
                seen.append(path)
                yield {"messages": path}
        if not seen:
            yield LeftOut("the tree has no answer")


def walk(root: Node, best: bool) -> Iterator[list[dict[str, str]]]:
    """Paths from the root to every leaf, or to the one of best rank, however deep the tree."""
    stack: list[tuple[Node, list[dict[str, str]]]] = [(root, [])]
    while stack:
        node, before = stack.pop()
        path = [*before, {"role": SPEAKERS[node["role"]], "content": node["text"]}]
        replies = sorted((reply for reply in node["replies"] if not reply.get("deleted")), key=rank)
        if not replies:
            yield path
        for reply in reversed(replies[:1] if best else replies):
            stack.append((reply, path))


def rank(node: Node) -> float:
    """0 is best; a message without a rank comes last, in the order of the file."""
    found = node.get("rank")
    known = isinstance(found, (int, float)) and not isinstance(found, bool) and found == found
    return float(found) if known and found is not None else float("inf")


def trees(rows: Iterable[Any]) -> Iterator[tuple[list[Node], list[DataError]]]:
    """Roots of each tree, and what could not be read of it."""
    messages: list[Any] = []
    for row in rows:
        if isinstance(row, Mapping) and isinstance(row.get("prompt"), Mapping):
            yield linked(messages)
            messages = []
            yield nested(row["prompt"], place_of(row))
            continue
        if messages and tree_of(row) != tree_of(messages[-1]):
            yield linked(messages)
            messages = []
        messages.append(row)
    yield linked(messages)


def tree_of(row: Any) -> Any:
    return row.get("message_tree_id") if isinstance(row, Mapping) else None


def place_of(row: Any) -> str:
    return str(row.get(PLACE, "a message")) if isinstance(row, Mapping) else "a message"


def node_of(row: Any, place: str) -> Node:
    """A message, checked, without replies."""
    if not isinstance(row, Mapping) or row.get("role") not in tuple(SPEAKERS):
        found = shown(row.get("role") if isinstance(row, Mapping) else row)
        raise BadRow(place, f"needs a role among {', '.join(SPEAKERS)}, got {found}")
    if not isinstance(row.get("text"), str):
        raise BadRow(place, f"needs `text`, got {shown(row.get('text'))}")
    return {**row, "replies": []}


def nested(prompt: Any, place: str) -> tuple[list[Node], list[DataError]]:
    """The tree of one row that holds all its messages."""
    faults: list[DataError] = []
    top: list[Node] = []
    stack: list[tuple[Any, list[Node]]] = [(prompt, top)]
    while stack:
        row, siblings = stack.pop()
        try:
            node = node_of(row, place)
        except DataError as error:
            faults.append(error)
            continue
        siblings.append(node)
        replies = row.get("replies")
        for reply in reversed(replies if isinstance(replies, (list, tuple)) else []):
            stack.append((reply, node["replies"]))
    return top, faults


def linked(rows: list[Any]) -> tuple[list[Node], list[DataError]]:
    """The tree of messages that name their parents."""
    nodes: dict[str, Node] = {}
    faults: list[DataError] = []
    for row in rows:
        try:
            node = node_of(row, place_of(row))
            if not isinstance(row.get("message_id"), str) or row["message_id"] in nodes:
                found = shown(row.get("message_id"))
                raise BadRow(place_of(row), f"needs a `message_id` of its own, got {found}")
        except DataError as error:
            faults.append(error)
            continue
        nodes[row["message_id"]] = node
    roots = []
    for node in nodes.values():
        parent = node.get("parent_id")
        if parent is None or parent != parent:  # NaN is what tables put where nothing is
            roots.append(node)
        elif isinstance(parent, str) and parent in nodes:
            nodes[parent]["replies"].append(node)
        else:
            why = "has a parent that is not among the rows around it of the same tree"
            faults.append(BadRow(place_of(node), f"{why}, got {shown(parent)}"))
    return roots, faults
