"""Tülu 3's rule: by hand, against the rule written out, and on the public data."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.decontamination import ngrams
from posttrain.decontamination.ngrams import Ngrams, split
from posttrain.decontamination.prompts import read_eval_file, user_turns

TEN = "one two three four five six seven eight nine ten"
Rows = Callable[[str], list[dict[str, Any]]]


def test_the_share_of_words_in_shared_ngrams() -> None:
    find = Ngrams([TEN], n=4, threshold=0.5)
    assert find(
        [
            [TEN.upper() + "!"],
            ["say: two three four five six please"],  # 5 of 10
            ["two three four five"],  # 4 of 10
            ["one two three four x seven eight nine ten"],  # 4 + 4, two n-grams apart
            ["one two three", "four five six"],  # nothing reaches across turns
            ["nothing of it"],
        ]
    ) == [{0: 1.0}, {0: 0.5}, {}, {0: 0.8}, {}, {}]


def test_two_rows_that_cover_a_part_each_do_not_count() -> None:
    find = Ngrams([TEN], n=3, threshold=0.5)
    assert find([["one two three"], ["eight nine ten"]]) == [{}, {}]
    assert find([["one two three", "eight nine ten"]]) == [{0: 0.6}]  # one row, two turns


def test_threshold_zero_is_any_shared_ngram() -> None:
    find = Ngrams([TEN, "x"], n=4, threshold=0)
    assert find([["one two three four"], ["one two three"], ["x"]]) == [{0: 0.4}, {}, {1: 1.0}]


def test_prompts_without_an_ngram_are_compared_as_a_whole() -> None:
    find = Ngrams(["Who wrote it?", TEN, ""], n=8)
    assert find.short.tolist() == [True, False, True]
    assert find([["who wrote it"], ["tell me who wrote it"]]) == [{0: 1.0}, {}]


def test_a_prompt_that_repeats_itself() -> None:
    find = Ngrams(["a b a b a b a b c d"], n=2, threshold=0)
    assert find([["a b"], ["b a"]]) == [{0: 0.8}, {0: 0.6}]


def test_a_frequent_ngram_hides_nothing() -> None:
    prompts = [f"the same eight words stand in front of number {i} {i} {i}" for i in range(3000)]
    found = Ngrams(prompts, n=8)([["The same eight words stand in front of number"]])
    assert found == [dict.fromkeys(range(3000), 9 / 12)]


WORD = st.sampled_from(["a", "b", "c", "日", "Ä", "x_1", ".", ",", "\x00", "İ"])
TEXT = st.lists(WORD, max_size=14).map(" ".join)


@given(
    st.lists(st.lists(TEXT, max_size=3), max_size=5),
    st.lists(TEXT, min_size=1, max_size=5),
    st.integers(1, 5),
    st.sampled_from([0, 0.25, 0.5, 0.6, 1.0]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_rows_equal_the_rule_written_out(
    plain: Callable[..., list[dict[int, float]]],
    batch: list[list[str]],
    prompts: list[str],
    n: int,
    threshold: float,
) -> None:
    assert Ngrams(prompts, n, threshold)(batch) == plain(batch, prompts, n, threshold)


def test_public_rows_equal_the_rule_written_out(
    plain: Callable[..., list[dict[int, float]]], rows: Rows, data: Callable[[str], Path]
) -> None:
    batch = [user_turns(row) for row in rows("math/train_from_test4500.jsonl.gz")[::40]]
    prompts = read_eval_file(data("math/math500.jsonl.gz")).prompts
    for n, threshold in ((8, 0), (5, 0.3), (3, 0.2)):
        found = Ngrams(prompts, n, threshold)(batch)
        assert found == plain(batch, prompts, n, threshold)
        assert any(found)


def test_splitting_the_work_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"a b c d e {i % 7} {i}" for i in range(60)]
    batch = [[f"x a b c d e {i % 5} {i}"] for i in range(40)]
    whole = Ngrams(prompts, 3, 0.3)(batch)
    monkeypatch.setattr(ngrams, "_POSTINGS", 50)
    assert Ngrams(prompts, 3, 0.3)(batch) == whole
    assert any(whole)


def test_parts_hold_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "_POSTINGS", 10)
    rows = np.array([0, 0, 1, 1, 1, 2, 3])
    counts = np.array([4, 4, 9, 9, 9, 1, 1])
    assert list(split(rows, counts)) == [slice(0, 2), slice(2, 5), slice(5, 7)]


def test_an_index_can_be_sent_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(Ngrams([TEN], 4)))
    assert copy([[TEN]]) == [{0: 1.0}]


def test_an_index_without_any_ngram() -> None:
    assert Ngrams(["", "?"], 2, 0)([["a b c"], [""], ["?"]]) == [{}, {}, {}]


@pytest.fixture
def gsm8k(data: Callable[[str], Path]) -> list[str]:
    return list(read_eval_file(data("gsm8k/test.jsonl.gz")).prompts)


@pytest.mark.parametrize(
    ("n", "threshold", "flagged"),
    [(8, 0.5, 0), (5, 0.5, 10), (8, 0, 71), (13, 0, 0)],
)
def test_paraphrases_are_not_found(
    rows: Rows, gsm8k: list[str], n: int, threshold: float, flagged: int
) -> None:
    """The measured limit of the rule: 0%, 0.9%, 6.7% and 0% of 1,055 rephrased questions."""
    rephrased = [[row["text"]] for row in rows("decontamination/rephrase_gsm8k.jsonl.gz")]
    found = Ngrams(gsm8k, n, threshold)(rephrased)
    assert sum(i in docs for i, docs in enumerate(found)) == flagged


def test_gsm8k_train_holds_two_test_questions(rows: Rows, gsm8k: list[str]) -> None:
    train = [user_turns(row) for row in rows("gsm8k/train.jsonl.gz")]
    assert len({doc for docs in Ngrams(gsm8k)(train) for doc in docs}) == 2


def test_one_rephrased_humaneval_prompt_is_found(rows: Rows, data: Callable[[str], Path]) -> None:
    prompts = read_eval_file(data("humaneval/HumanEval.jsonl.gz")).prompts
    texts = rows("decontamination/rephrase_humaneval_python.jsonl")
    found = Ngrams(prompts)([[row["text"]] for row in texts])
    assert sum(map(bool, found)) == 1
