"""The pair that ratings make."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.ultrafeedback import (
    ASPECTS,
    UltraFeedback,
    UltraFeedbackBinarized,
    number,
)


def answer(name: str, *ratings: Any, overall: Any = None) -> dict[str, Any]:
    annotations = {a: {"Rating": r} for a, r in zip(ASPECTS, ratings, strict=True)}
    return {"response": name, "annotations": annotations, "overall_score": overall}


def pair(*completions: Any, **options: Any) -> tuple[str, str]:
    raw = {"instruction": "Why?", "completions": list(completions)}
    (row,) = UltraFeedback(**options)(raw)
    assert row["prompt"] == "Why?" and row["chosen_score"] > row["rejected_score"]
    return row["chosen"], row["rejected"]


def test_the_mean_of_the_aspects() -> None:
    # means: (5 + 3 + 4) / 3 = 4 without the N/A; 3.75; 2
    rated = [answer("a", "5", "N/A", "3", "4"), answer("b", 4, 4, 4, 3), answer("c", 2, 2, 2, 2)]
    assert pair(*rated, rejected="lowest") == ("a", "c")
    assert pair(*rated[:2]) == ("a", "b")


def test_the_overall_score_may_say_otherwise() -> None:
    rated = [answer("a", 5, 5, 5, 5, overall=3.0), answer("b", 1, 1, 1, 1, overall="8.5")]
    assert pair(*rated) == ("a", "b")
    assert pair(*rated, score="overall") == ("b", "a")


def test_the_first_of_the_best_is_chosen_and_never_rejected() -> None:
    rated = [answer("a", 4, 4, 4, 4), answer("b", 4, 4, 4, 4), answer("c", 1, 1, 1, 1)]
    assert {pair(*rated, seed=seed) for seed in range(20)} == {("a", "c")}


def test_the_rejected_one_is_drawn_by_the_seed() -> None:
    rated = [answer(str(i), i, i, i, i) for i in range(1, 6)]
    drawn = [pair(*rated, seed=seed)[1] for seed in range(50)]
    assert set(drawn) == {"1", "2", "3", "4"}
    assert drawn == [pair(*rated, seed=seed)[1] for seed in range(50)]


def test_rows_that_prefer_nothing() -> None:
    with pytest.raises(LeftOut, match="rated alike"):
        pair(answer("a", 4, 4, 4, 4), answer("b", 4, 4, 4, 4))
    with pytest.raises(LeftOut, match="fewer than two"):
        pair(answer("a", 4, 4, 4, 4), answer("b", *["N/A"] * 4))
    with pytest.raises(DataError, match="needs `annotations`"):
        pair({"response": "a"}, answer("b", 4, 4, 4, 4))


def test_ratings_in_a_list_of_one() -> None:
    listed = {"response": "a", "annotations": {a: [{"Rating": "5"}] for a in ASPECTS}}
    assert pair(listed, answer("b", 1, 1, 1, 1)) == ("a", "b")


@given(st.lists(st.lists(st.integers(1, 5), min_size=4, max_size=4), min_size=2, max_size=5))
def test_chosen_is_rated_higher(ratings: list[list[int]]) -> None:
    completions = [answer(str(i), *r) for i, r in enumerate(ratings)]
    raw = {"instruction": "Why?", "completions": completions}
    if len({sum(r) for r in ratings}) == 1:
        with pytest.raises(LeftOut):
            UltraFeedback()(raw)
        return
    (row,) = UltraFeedback()(raw)
    assert sum(ratings[int(row["chosen"])]) == max(map(sum, ratings))
    assert sum(ratings[int(row["rejected"])]) < sum(ratings[int(row["chosen"])])


@pytest.mark.parametrize("given_value", ["N/A", "", None, True, "inf", float("nan"), [4], "1e999"])
def test_no_number(given_value: Any) -> None:
    assert number(given_value) is None


def test_binarized() -> None:
    raw = {"prompt": "p", "chosen": [], "rejected": [], "score_chosen": 8, "score_rejected": 8}
    assert UltraFeedbackBinarized()(raw) == [raw]
    with pytest.raises(LeftOut):
        UltraFeedbackBinarized(drop_ties=True)(raw)
    assert UltraFeedbackBinarized(drop_ties=True)(raw | {"score_chosen": 9})


def test_half_a_character_decides_the_draw_too() -> None:
    """It is replaced when the row is read; the draw comes before."""
    rated = [answer("a", 4, 4, 4, 4), answer("b", 1, 1, 1, 1)]
    (row,) = UltraFeedback()({"instruction": "Why \ud800?", "completions": rated})
    assert (row["prompt"], row["rejected"]) == ("Why \ud800?", "b")
