"""Filters by the names that recipes use, and what all of them share."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

from posttrain.errors import RecipeError
from posttrain.filters import FILTERS, SetFilter, get_filters

OPTIONS: dict[str, dict[str, Any]] = {"length": {"min": 1}}
SPECS = [{"name": name, **OPTIONS.get(name, {})} for name in FILTERS]


def chat(user: str, assistant: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    }


def test_names_and_mappings() -> None:
    assert [type(rule) for rule in get_filters(SPECS)] == list(FILTERS.values())
    assert get_filters(["empty_turns"]) == get_filters([{"name": "empty_turns"}])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("empty_turn", "unknown filter 'empty_turn'; did you mean 'empty_turns'?"),
        ({"name": "empty_turns", "least": 3}, "filter 'empty_turns' has no option 'least'"),
        ({}, "unknown filter None"),
        ("length", "filter 'length': give `min`, `max` or both"),
        ({"name": "pii", "kinds": ["mail"]}, "`kinds` must be one of email, phone"),
        ({"name": "near_duplicates", "threshold": 0}, "must be above 0 and at most 1, got 0"),
        ({"name": "near_duplicates", "bands": 5}, "`bands` must divide num_perm 128, got 5"),
    ],
)
def test_wrong_specs(spec: object, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_filters([spec])
    assert says in str(caught.value)


@pytest.mark.parametrize("spec", SPECS, ids=list(FILTERS))
def test_a_filter_travels_to_a_worker(spec: dict[str, Any]) -> None:
    here = get_filters([spec])[0]
    there = pickle.loads(pickle.dumps(here))
    row = chat("Write to ann@mail.org now, please!", "As ChatGPT, I'm sorry, I can't:")
    if isinstance(here, SetFilter):
        mark = there.mark(row)
        assert mark is not None
        assert mark == here.mark(row)
        assert here.judge(mark) is None
        assert here(row) is not None  # the same row again
    else:
        assert there(row) == here(row)


@pytest.mark.parametrize("spec", SPECS, ids=list(FILTERS))
def test_odd_rows_do_no_harm(spec: dict[str, Any]) -> None:
    rule = get_filters([spec])[0]
    for text in ("", " \n", "\ud800 lone", "\x00", "🙂" * 40, "漢字" * 40):
        for row in ({"text": text}, chat(text, text), {"prompt": [], "ground_truth": text}):
            reason = rule(row)
            assert reason is None or reason.strip()


@pytest.mark.parametrize("spec", SPECS, ids=list(FILTERS))
@pytest.mark.parametrize("text", ["a" * 10**6, " +1 (2)3" * 40_000, "sorry a@ " * 30_000])
def test_no_pattern_explodes(spec: dict[str, Any], text: str) -> None:
    """Linear patterns take tens of milliseconds here, backtracking ones minutes."""
    rule = get_filters([spec])[0]
    start = time.process_time()
    rule(chat(text, text + "b"))
    assert time.process_time() - start < 5
