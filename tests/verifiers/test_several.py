"""Several verifiers for one prompt."""

from __future__ import annotations

import json

import pytest

from posttrain.errors import VerifierError
from posttrain.formats import to_row
from posttrain.verifiers import check_problem, get_verifier, verify

RAW = {"prompt": "2+2, in a word or a digit?", "ground_truth": ["4", "four"]}
ROW = to_row("problem", {**RAW, "dataset": ["gsm8k", "string_match"]})


@pytest.mark.parametrize(("completion", "score"), [("four is 4", 0.5), ("four", 0.5), ("5", 0.0)])
def test_the_score_is_the_mean(completion: str, score: float) -> None:
    found = verify(ROW["verifier"], completion, ROW["ground_truth"])
    assert found.score == score and ";" in found.reason


def test_all_right_is_one() -> None:
    truth = json.dumps(["4", "4"])
    assert verify("gsm8k+math", r"The answer is $\\boxed{4}$ 4", truth).score == 1.0


def test_every_name_is_remapped_and_every_truth_checked() -> None:
    row = check_problem(ROW, {"string_match": "math", "gsm8k": "string_match"})
    assert row["verifier"] == "string_match+math"
    with pytest.raises(VerifierError):
        check_problem({**ROW, "verifier": "gsm8k+gsm8k+gsm8k"}, {})
    with pytest.raises(VerifierError, match="did you mean 'gsm8k'"):
        get_verifier("gsm8k+gsm9k")
    with pytest.raises(VerifierError, match="2 verifiers need a list of as many"):
        get_verifier("gsm8k+math").check_ground_truth("4")
