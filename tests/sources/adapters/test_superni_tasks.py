"""Which tasks and instances are used, and what makes a task file unsound."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from posttrain.sources.adapters.superni_tasks import (
    HELD_OUT,
    is_english,
    label_faults,
    label_of,
    round_robin,
    split_tasks,
    validate,
)

ENGLISH = {name: ["English"] for name in ("Input_language", "Output_language")}


def task(category: str, source: str, **fields: Any) -> dict[str, Any]:
    return {"Categories": [category], "Source": [source], **ENGLISH, **fields}


def instances(*outputs: str) -> list[dict[str, Any]]:
    return [{"id": str(i), "input": f"in {i}", "output": [out]} for i, out in enumerate(outputs)]


def sound() -> dict[str, Any]:
    positive = [{"input": f"p{i}", "output": "a", "explanation": ""} for i in range(2)]
    return {
        "Positive Examples": positive,
        "Negative Examples": positive[:1],
        "Instances": instances(*["yes", "no"] * 13),
    }


def test_there_are_twelve_categories() -> None:
    assert len(HELD_OUT) == 12


def test_a_task_that_shares_a_source_with_a_test_task_is_not_trained_on() -> None:
    tasks = {
        "train": task("Question Answering", "squad"),
        "leaks": task("Question Answering", "snli"),
        "test": task("Textual Entailment", "snli"),
        "other language": task("Question Answering", "xnli", Output_language=["Hindi"]),
    }
    assert split_tasks(tasks) == (["train"], ["test"])


def test_english() -> None:
    assert is_english({}) and is_english({"Input_language": "English"})
    assert not is_english({"Input_language": ["English", "Hindi"]})


def test_round_robin_balances_ninety_to_ten() -> None:
    drawn = round_robin(instances(*["yes"] * 90, *["no"] * 10), 20, random.Random(0))
    assert Counter(map(label_of, drawn)) == {"yes": 10, "no": 10}
    drawn = round_robin(instances(*["yes"] * 90, *["no"] * 10), 50, random.Random(0))
    assert Counter(map(label_of, drawn)) == {"yes": 40, "no": 10}


def test_a_sound_task() -> None:
    assert validate(sound()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Instances": instances(*["yes", "no"] * 12, "no")}, "25 instances; more than 25"),
        ({"Positive Examples": []}, "0 positive examples; at least 2"),
        ({"Negative Examples": []}, "0 negative examples; at least 1"),
        ({"Instances": sound()["Instances"] + instances("yes")}, "1 instances repeat the input"),
        ({"Positive Examples": [{"input": "in 3"}, {"input": "p"}]}, "1 positive examples are"),
        ({"Instances": instances(*["yes"] * 26)}, "the same output"),
        ({"Instances": instances(*["yes"] * 90, *["no"] * 10)}, "normalised entropy 0.47"),
    ],
)
def test_unsound_tasks(change: dict[str, Any], says: str) -> None:
    (fault,) = validate(sound() | change)
    assert says in fault


def test_the_entropy_by_hand() -> None:
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert round(entropy, 2) == 0.47
    assert label_faults(Counter({str(i): 1 + i // 14 * 1000 for i in range(15)})) == []
