"""Trees of messages: flat or nested, all paths or the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.sources.adapters import LeftOut
from posttrain.sources.adapters.oasst import OASST

#            q
#        /       \
#   good (0)    bad (1)
#     |    \
#   more?  again?
#     |
#   sure
TREE = [
    ("q", None, "prompter", None),
    ("bad", "q", "assistant", 1),
    ("good", "q", "assistant", 0),
    ("more?", "good", "prompter", None),
    ("again?", "good", "prompter", None),
    ("sure", "more?", "assistant", None),
]


def flat(tree: str = "t") -> list[dict[str, Any]]:
    return [
        {"message_id": i, "parent_id": p, "message_tree_id": tree, "role": r, "text": i, "rank": n}
        for i, p, r, n in TREE
    ]


def nested(rows: list[dict[str, Any]]) -> dict[str, Any]:
    nodes = {row["message_id"]: row | {"replies": []} for row in rows}
    for row in nodes.values():
        if row["parent_id"]:
            nodes[row["parent_id"]]["replies"].append(row)
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": nodes["q"]}


def said(rows: Any) -> list[list[str]]:
    return [[m["content"] for m in row["messages"]] for row in rows]


ALL = [["q", "good", "more?", "sure"], ["q", "good"], ["q", "bad"]]


@pytest.mark.parametrize("rows", [flat(), flat()[::-1], [nested(flat())]])
def test_all_paths_and_the_best(rows: list[Any]) -> None:
    assert sorted(said(OASST()(rows))) == sorted(ALL)
    assert said(OASST(paths="best")(flat())) == ALL[:1]


def test_roles() -> None:
    (row,) = OASST(paths="best")(flat())
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2


def test_trees_follow_each_other() -> None:
    rows = [*flat("t"), nested(flat()), *flat("u")]
    assert said(OASST(paths="best")(rows)) == ALL[:1] * 3


def test_rows_are_read_as_they_are_needed() -> None:
    read = []

    def rows() -> Iterator[Any]:
        for tree in "abc":
            for row in flat(tree):
                read.append(tree)
                yield row

    next(OASST()(rows()))
    assert set(read) == {"a", "b"} and read.count("b") == 1


def test_deleted_messages_and_other_languages() -> None:
    rows = flat()
    rows[2]["deleted"] = True
    assert said(OASST()(rows)) == [["q", "bad"]]
    rows[0]["lang"] = "de"
    assert said(OASST(lang="de")(rows)) == [["q", "bad"]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lang": "de"}, "the tree is in another language, got 'de'"),
        ({"deleted": True}, "the first message of the tree is deleted"),
        ({}, "the tree has no answer"),
    ],
)
@pytest.mark.parametrize("shape", [lambda row: row, lambda row: nested([row])])
def test_a_tree_of_which_nothing_is_taken_is_told_of(
    change: dict[str, Any], says: str, shape: Callable[..., Any]
) -> None:
    (made,) = OASST(lang="en")([shape(flat()[0] | {"lang": "en"} | change)])
    assert isinstance(made, LeftOut) and str(made) == says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"role": "gpt"}, "needs a role among prompter, assistant"),
        ({"text": None}, "needs `text`"),
        ({"message_id": "q"}, "`message_id` of its own"),
        ({"message_id": ["x"]}, "`message_id` of its own"),
        ({"parent_id": "lost"}, "has a parent that is not among"),
    ],
)
def test_a_bad_message_is_told_and_the_rest_read(change: dict[str, Any], says: str) -> None:
    rows = flat()
    rows[1] |= change
    made = list(OASST()(rows))
    errors = [m for m in made if isinstance(m, DataError)]
    assert len(errors) == 1 and says in str(errors[0])
    assert said(m for m in made if not isinstance(m, DataError)) == ALL[:2]


def test_a_parent_that_a_table_left_empty() -> None:
    rows = flat()
    rows[0]["parent_id"] = float("nan")
    assert said(OASST(paths="best")(rows)) == ALL[:1]


def test_a_chain_of_ten_thousand_is_no_recursion() -> None:
    deep: Any = {"role": "assistant", "text": "end"}
    for i in range(10_000):
        deep = {"role": "prompter" if i % 2 == 0 else "assistant", "text": "x", "replies": [deep]}
    (row,) = OASST()([{"message_tree_id": "t", "prompt": deep}])
    assert len(row["messages"]) == 10_001


def test_the_real_file(shared_rows: Callable[..., Any]) -> None:
    trees = shared_rows("oasst/en_100_tree.jsonl.gz")
    best = list(OASST(paths="best")(trees))
    every = list(OASST()(trees))
    assert len(best) == len(trees) and len(every) > len(best)
    assert all(row["messages"][-1]["role"] == "assistant" for row in every)
    assert all(row in every for row in best)
