"""Self-Instruct's rules, each with a row that passes and one that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.filters.self_instruct import SelfInstruct

SEEDS = Path(__file__).resolve().parents[2].parent / "shared/data/self_instruct/seed_tasks.jsonl"


def chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["Name three large animals.", "Elephant, whale, bear."], None),
        (["Name three animals.", "Ant."], "the instruction has fewer than 4 words"),
        (["word " * 150, "Ant."], None),
        (["word " * 151, "Ant."], "the instruction has more than 150 words"),
        (["Describe the Picture on it.", "Ant."], "the instruction asks for more than text"),
        (["Tell me where to go to eat.", "Here."], "the instruction asks for more than text"),
        (["Describe a photographic profile to me.", "Ant."], None),  # whole words only
        (["Write a program that adds.", "Ant."], "the instruction asks for a program"),
        (["Please write a program that adds.", "Ant."], None),
        (["(a) or (b) or what?", "a"], "the instruction starts with no ASCII letter or digit"),
        (["Écris un poème sur elle.", "a"], "the instruction starts with no ASCII letter or digit"),
        (["Name three large animals.", " "], "the output is empty"),
        (
            ["Name three large animals.", "Name three large animals."],
            "the output repeats the input",
        ),
        (["Name three large animals.", "Here they are:"], "the output ends in a colon"),
        (["Name three large animals.", "Here:", "And then?", "Ant."], None),  # the last answer
    ],
)
def test_rules(turns: list[str], reason: str | None) -> None:
    assert SelfInstruct()(chat(*turns)) == reason


def test_other_shapes_and_options() -> None:
    short = {"prompt": [{"role": "user", "content": "Why?"}], "ground_truth": "4"}
    assert SelfInstruct()(short) == "the instruction has fewer than 4 words"
    assert SelfInstruct(min_words=1)(short) is None
    assert SelfInstruct()({"text": "Why?"}) is None


@pytest.mark.skipif(not SEEDS.exists(), reason="the public seed tasks are not beside this checkout")
def test_the_published_seeds_lose_two() -> None:
    seeds = [json.loads(line)["instruction"] for line in SEEDS.open(encoding="utf-8")]
    reasons = [SelfInstruct()({"prompt": [{"role": "user", "content": s}]}) for s in seeds]
    length_or_keyword = [r for r in reasons if r and ("words" in r or "more than text" in r)]
    assert length_or_keyword == ["the instruction has fewer than 4 words"] * 2
