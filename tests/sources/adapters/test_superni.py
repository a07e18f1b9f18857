"""Task files encoded as Tk-Instruct does it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.superni import ENCODINGS, SuperNI, stopped, words

TASK: dict[str, Any] = {
    "__file__": "task001_colour.json",
    "Definition": ["Name the colour"],
    "Categories": ["Question Answering"],
    "Input_language": ["English"],
    "Positive Examples": [
        {"input": "Sky?", "output": "blue", "explanation": "Look up"},
        {"input": "Grass?", "output": "green", "explanation": "Look down."},
        {"input": "Third?", "output": "never", "explanation": ""},
    ],
    "Negative Examples": [{"input": "Snow?", "output": "hot", "explanation": "No colour."}],
    "Instances": [{"id": "1", "input": "Coal", "output": ["black", "dark"]}],
}
FULL = """Definition: Name the colour.

Positive Example 1 -
Input: Sky?
Output: blue.
Explanation: Look up.

Positive Example 2 -
Input: Grass?
Output: green.
Explanation: Look down.

Now complete the following example -
Input: Coal.
Output: """


def prompt(**options: Any) -> str:
    (row,) = SuperNI(**options)(TASK)
    return row["prompt"]


def test_the_whole_prompt() -> None:
    assert prompt(encoding="definition_positive_2_explained") == FULL
    without = [line for line in FULL.splitlines(True) if not line.startswith("Explanation")]
    assert prompt() == "".join(without)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_shows_its_parts(encoding: str) -> None:
    text = prompt(encoding=encoding)
    assert text.startswith("Definition:") == encoding.startswith("definition")
    assert ("Positive Example 2 -" in text) == ("positive_2" in encoding)
    assert ("Negative Example 1 -" in text) == ("negative_2" in encoding)
    assert ("Explanation:" in text) == encoding.endswith("explained")
    assert "Third?" not in text


def test_all_encodings_are_drawn_about_equally() -> None:
    many = [{"id": str(i), "input": f"Coal {i}", "output": ["black"]} for i in range(500)]
    rows = SuperNI(encoding="all", max_instances=None)(TASK | {"Instances": many})
    kinds = Counter(
        (
            "Definition:" in r["prompt"],
            "Positive" in r["prompt"],
            "Negative" in r["prompt"],
            "Explanation" in r["prompt"],
        )
        for r in rows
    )
    assert len(kinds) == 5 and all(70 < n < 130 for n in kinds.values())


def test_an_example_that_does_not_fit_is_left_out_whole() -> None:
    # definition 4 words, body 9, each example 8
    assert words(prompt(encoding="definition")) == 4 + 9
    assert words(prompt()) == 4 + 9 + 8 + 8
    one = prompt(max_words=28)
    assert words(one) == 21 and "Positive Example 1 -" in one and "Grass" not in one
    assert words(prompt(max_words=29)) == 29


def test_a_body_that_is_too_long_is_cut_before_the_output_marker() -> None:
    task = TASK | {"Instances": [{"id": "1", "input": "word " * 100, "output": "x"}]}
    (row,) = SuperNI(encoding="definition", max_words=20)(task)
    assert words(row["prompt"]) == 20
    assert row["prompt"].endswith("word.\nOutput: ")


def test_a_tokenizer_may_count() -> None:
    text = prompt(max_words=140, count=len)  # 88 characters, 48 more per example
    assert len(text) == 136 and "Positive Example 1 -" in text


def test_the_answer_is_one_reference() -> None:
    answers = {SuperNI(seed=seed)(TASK)[0]["completion"] for seed in range(20)}
    assert answers == {"black.", "dark."}
    (row,) = SuperNI(max_answer_words=2)(
        TASK | {"Instances": [{"id": "1", "input": "a", "output": "one two three"}]}
    )
    assert row["completion"] == "one two."


def test_draws_do_not_depend_on_the_order_of_files() -> None:
    many = [{"id": str(i), "input": f"Coal {i}", "output": ["a", "b"]} for i in range(200)]
    adapter = SuperNI(max_instances=10)
    first = adapter(TASK | {"Instances": many})
    adapter(TASK)
    assert adapter(TASK | {"Instances": many}) == first and len(first) == 10
    other = adapter(TASK | {"Instances": many, "__file__": "task002.json"})
    assert other != first


def test_held_out_and_foreign_tasks_are_left_out() -> None:
    entailment = TASK | {"Categories": ["Textual Entailment"]}
    with pytest.raises(LeftOut, match="held out"):
        SuperNI()(entailment)
    assert SuperNI(held_out=True)(entailment)
    hindi = TASK | {"Output_language": ["Hindi"]}
    with pytest.raises(LeftOut, match="not in English"):
        SuperNI()(hindi)
    assert SuperNI(english_only=False)(hindi)


def test_labels_in_turn() -> None:
    outputs = ["yes"] * 90 + ["no"] * 10
    many = [{"id": str(i), "input": f"Q{i}", "output": [o]} for i, o in enumerate(outputs)]
    rows = SuperNI(choose="round_robin", max_instances=20)(TASK | {"Instances": many})
    assert Counter(r["completion"] for r in rows) == {"yes.": 10, "no.": 10}


def test_the_name_of_the_task() -> None:
    assert prompt(task_name=True).startswith("task001_colour. Definition: ")


def test_full_stops() -> None:
    assert [stopped(t) for t in ("a", "a.", "a?", "", "7", "ä")] == [
        "a.", "a.", "a?", "", "7.", "ä.",
    ]  # fmt: skip


def test_half_a_character_decides_draws_too() -> None:
    """It is replaced when the row is read; the draw comes before."""
    (row,) = SuperNI()(TASK | {"Instances": [{"id": "1", "input": "a\ud800", "output": ["b"]}]})
    assert row["completion"] == "b." and "a\ud800" in row["prompt"]
