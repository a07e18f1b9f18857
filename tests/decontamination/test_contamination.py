"""Shares per training source and evaluation set."""

from __future__ import annotations

import pytest

from posttrain.decontamination.contamination import Contamination, contamination
from posttrain.decontamination.match import Decontaminator
from posttrain.decontamination.prompts import EvalSet
from posttrain.errors import DataError

EVALS = [EvalSet("a", [f"prompt number {i}" for i in range(10)]), EvalSet("b", ["b one", "b two"])]


def rows(**texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text, "source": source} for source, many in texts.items() for text in many]


def table(threshold: float = 0.02) -> Contamination:
    train = rows(
        first=["prompt number 3", "prompt number 3", "x", "prompt number 4"],
        second=["y", "b one"],
        third=["z"] * 3000,  # more than a batch
    )
    return contamination(train, Decontaminator(EVALS, "exact"), threshold)


def test_shares_of_both_sides() -> None:
    lines = table().table()
    assert [(line["source"], line["eval_set"]) for line in lines] == [
        (source, name) for source in ("first", "second", "third") for name in ("a", "b")
    ]
    assert lines[0] == {
        "source": "first",
        "eval_set": "a",
        "eval_rows": 10,
        "matched_eval_rows": 2,  # two rows hold the same prompt
        "eval_share": 0.2,
        "train_rows": 4,
        "matched_train_rows": 3,
        "train_share": 0.75,
        "contaminated": True,
    }
    assert [line["eval_share"] for line in lines] == [0.2, 0, 0, 0.5, 0, 0]
    assert lines[-1]["train_rows"] == 3000


def test_more_than_the_threshold_is_contaminated() -> None:
    assert table().contaminated() == {"first": ["a"], "second": ["b"]}
    assert table(0.2).contaminated() == {"second": ["b"]}  # 20% is not more than 20%
    assert table(0.5).contaminated() == {}


def test_the_error_names_the_worst() -> None:
    table(0.5).check()
    with pytest.raises(DataError) as caught:
        table().check()
    assert str(caught.value) == (
        "second holds 1 of the 2 prompts of b (50.0%, more than 2.0%): remove the source, or set "
        "`decontaminate: {action: drop_rows}`"
    )
