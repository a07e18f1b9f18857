"""Self-Instruct's novelty rule, on its 175 published seeds too."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.filters.base import split_words
from posttrain.filters.rouge_novelty import RougeNovelty, lcs, rouge_l, rouge_l_bound

SEEDS = Path(__file__).resolve().parents[2].parent / "shared/data/self_instruct/seed_tasks.jsonl"
LIKE = "an earlier row has a ROUGE-L above 0.7"


def prompt(text: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": text}], "ground_truth": "1"}


def plain_lcs(a: str, b: str) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@given(st.text("abcd", max_size=30), st.text("abcd", max_size=30))
def test_lcs_against_the_table(a: str, b: str) -> None:
    assert lcs(a, b) == plain_lcs(a, b)


def test_the_bound_is_never_below() -> None:
    rng = random.Random(0)
    for _ in range(10_000):
        a, b = (rng.choices("abcdef", k=rng.randint(0, 12)) for _ in range(2))
        assert rouge_l(a, b) <= rouge_l_bound(a, b)


def test_by_hand() -> None:
    a, b = split_words("Police killed the gunman"), split_words("police kill the gunman today")
    assert lcs(a, b) == 3
    assert rouge_l(a, b) == pytest.approx(2 * 3 / 9)
    assert rouge_l(split_words("你好吗"), split_words("你好吗?")) == 1  # other scripts count
    assert rouge_l([], a) == 0


def test_rows() -> None:
    keep = RougeNovelty()
    assert keep(prompt("one two three four five six seven")) is None
    # 5 of 7 and 7: F = 10 / 14 = 0.714
    assert keep(prompt("one two three four five x y")) == LIKE
    # 7 of 7 and 13: F = 14 / 20 = 0.7, which is not above it
    assert keep(prompt("one two three four five six seven a b c d e f")) is None
    assert keep(prompt("seven six five four three two one")) is None  # same words, other order
    assert keep(prompt("")) is None
    assert keep(prompt("你好吗, 朋友")) is None
    assert keep(prompt("你好吗 朋友!")) == LIKE


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_it_keeps_what_comparing_all_would(threshold: float) -> None:
    rng, keep = random.Random(5), RougeNovelty(threshold=threshold)
    kept: list[list[str]] = []
    for _ in range(400):
        words = rng.choices("abcdefghijkl", k=rng.randint(1, 9))
        new = all(rouge_l(words, other) <= threshold for other in kept)
        assert (keep(prompt(" ".join(words))) is None) == new
        if new:
            kept.append(words)
    assert len(kept) > 5


def test_long_prompts_are_cut() -> None:
    keep = RougeNovelty(max_words=3)
    assert keep(prompt("a b c d e f")) is None
    assert keep(prompt("a b c x y z")) == LIKE


@pytest.mark.skipif(not SEEDS.exists(), reason="the public seed tasks are not beside this checkout")
def test_the_published_seeds() -> None:
    seeds = [json.loads(line)["instruction"] for line in SEEDS.open(encoding="utf-8")]
    words = [split_words(seed) for seed in seeds]
    nearest = [
        max(rouge_l(a, b) for j, b in enumerate(words) if j != i) for i, a in enumerate(words)
    ]
    assert len(seeds) == 175
    assert sum(score > 0.7 for score in nearest) == 4
    assert sum(score > 0.5 for score in nearest) == 11
    assert sum(nearest) / 175 == pytest.approx(0.36, abs=0.005)
    keep = RougeNovelty()
    assert sum(keep(prompt(seed)) is not None for seed in seeds) == 2  # two pairs
