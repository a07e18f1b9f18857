from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers.gsm8k import GSM8K, last_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 1,234.", "1234"),
        ("first 12 then 15", "15"),
        ("It is -5 degrees", "-5"),
        ("a loss of -$5", "-5"),
        ("a loss of $-5.50", "-5.5"),
        ("\u22127", "-7"),
        ("10-5", "5"),
        ("(3)-2", "2"),
        ("18.0", "18"),
        ("018", "18"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("72.", "72"),
        ("$1,000,000.25!", "1000000.25"),
        ("1{,}234", "1234"),
        ("50%", "50"),
        ("none", None),
        ("\u0661\u0662", None),
        ("", None),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    "truth", ["#### 18", "9 * 2 = <<9*2=18>>18\n#### 18", "18", 18, 18.0, Decimal("18"), "$18"]
)
def test_forms_of_the_ground_truth(truth: Any) -> None:
    assert GSM8K()("So she makes $18.00", truth).score == 1.0
    assert GSM8K()("So she makes $18.01", truth).score == 0.0


def test_the_number_after_the_marks_counts_not_the_last_of_the_working() -> None:
    assert GSM8K()("5", "7 - 2 = 5\n#### 5").score == 1.0
    with pytest.raises(VerifierError, match="got '7 - 2 = 5"):
        GSM8K().check_ground_truth("7 - 2 = 5\n#### five")


def test_a_number_after_the_marks_is_the_completions_answer() -> None:
    assert GSM8K()("#### 45\n\nQuestion: how many are 5 and 3?", "45").score == 1.0
    assert GSM8K()("#### 45\n\nQuestion: how many are 5 and 3?", "3").score == 0.0
    assert GSM8K()("#### -$1,045.50 in all, of 3", "-1045.5").score == 1.0
    assert GSM8K()("#### 45\n#### 46", "46").score == 1.0
    assert GSM8K()("#### Answer\nIt is 45.", "45").score == 1.0


def test_reasons_say_what_was_read() -> None:
    assert GSM8K()("so 71", "72").reason == "the number is '71', expected '72'"
    assert GSM8K()("no idea", "72").reason == "no number in the completion, expected 72"


@pytest.mark.parametrize("truth", ["twelve", float("inf"), float("nan"), False, None])
def test_a_ground_truth_without_a_number_is_unreadable(truth: Any) -> None:
    with pytest.raises(VerifierError, match="gsm8k needs a ground truth with a number"):
        GSM8K().check_ground_truth(truth)


def test_every_gold_answer_of_the_train_split(shared_rows: Callable[[str], list[Any]]) -> None:
    verifier, rows = GSM8K(), shared_rows("gsm8k/train.jsonl.gz")
    assert len(rows) == 7473
    for row in rows:
        verifier.check_ground_truth(row["answer"])
        assert verifier(row["answer"], row["answer"]).score == 1.0
        assert verifier("", row["answer"]).score == 0.0


def test_published_labels_of_model_solutions(shared_rows: Callable[[str], list[Any]]) -> None:
    verifier = GSM8K()
    for row in shared_rows("gsm8k/example_model_solutions.jsonl.gz"):
        for answer in row.values():
            if isinstance(answer, dict):
                verdict = verifier(answer["solution"], row["ground_truth"])
                assert verdict.score == float(answer["is_correct"])
