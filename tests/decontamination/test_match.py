"""The index over several evaluation sets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from posttrain.decontamination.match import Decontaminator, Match, drop_reason
from posttrain.decontamination.prompts import EvalSet
from posttrain.errors import DataError

SETS = [
    EvalSet("sums", ["What is one plus two plus three?", "short one"]),
    EvalSet("none", [""]),
    EvalSet("cities", ["Which city is the capital of the country of France?", "Short one!"]),
]


def user(text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "Which city is the capital of the country of France?"},
        ]
    }


def test_matches_name_the_set_and_its_row() -> None:
    finder = Decontaminator(SETS, n=4)
    rows = [user("what is one plus two plus four"), user("nothing"), user("Short one")]
    assert finder.matches(rows) == [
        [Match(0, 0, 6 / 7)],
        [],
        [Match(0, 1, 1.0), Match(2, 1, 1.0)],
    ]
    assert finder.too_short == [1, 1, 1]
    assert pickle.loads(pickle.dumps(finder)).matches(rows) == finder.matches(rows)


def test_answers_count_only_when_asked() -> None:
    assert Decontaminator(SETS, n=4, fields="all").matches([user("Hi")]) == [[Match(2, 0, 1.0)]]
    assert Decontaminator(SETS, n=4).matches([user("Hi")]) == [[]]


def test_the_other_modes() -> None:
    exact = Decontaminator(SETS, "exact")
    assert exact.matches([user("SHORT ONE")]) == [[Match(0, 1, 1.0), Match(2, 1, 1.0)]]
    assert exact.too_short == [0, 0, 0]
    close = Decontaminator(SETS, "embedding", threshold=0.6)
    (found,) = close.matches([user("What city is the capital of France, the country?")])
    assert [(match.eval_set, match.eval_row) for match in found] == [(2, 0)]
    assert 0.6 <= found[0].overlap < 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "ngrams"}, "unknown mode 'ngrams'; did you mean 'ngram'?"),
        ({"n": 0}, "`n` must be a whole number from 1 to 1000, got 0"),
        ({"n": True}, "`n` must be a whole number"),
        ({"threshold": 50}, "`threshold` must be from 0 to 1, got 50"),
        ({"threshold": float("nan")}, "`threshold` must be from 0 to 1, got nan"),
        ({"threshold": "x"}, "`threshold` must be a number from 0 to 1, got 'x'"),
        ({"mode": "embedding", "threshold": 0}, "`threshold` must be above 0, up to 1, got 0"),
        ({"eval_sets": []}, "there is no evaluation set"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        Decontaminator(**{"eval_sets": SETS, **options})
    assert says in str(caught.value)


def test_the_reason_names_the_set_of_the_largest_overlap() -> None:
    reason = drop_reason([Match(0, 1, 0.5), Match(2, 0, 0.75)], SETS)
    assert reason == (
        "it holds a prompt of the evaluation set cities, got its row 0 with an overlap of 75%"
    )
