from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import get_verifier, verify

CITIES = ["London", "Paris", "Rome", "Bern"]


@pytest.mark.parametrize(
    ("completion", "truth", "score"),
    [
        ("B", "B", 1),
        ("b", "B", 1),
        ("(B)", "(b)", 1),
        ("B.", "B", 1),
        ("**B**", "B", 1),
        ("B) Paris", "B", 1),
        ("The answer is B.", "B", 1),
        ("The answer is (B) Paris, a city.", "B", 1),
        ("The correct answer is: **B**", "B", 1),
        ("Answer: B", "B", 1),
        ("Final answer: \\boxed{B}", "B", 1),
        ("$\\boxed{\\text{(B)}}$", "B", 1),
        ("The answer is A. No, the answer is B.", "B", 1),
        ("I choose option B because C is wrong.", "B", 1),
        ("A is wrong.\nB\n", "B", 1),
        ("Both (A) and (C) fail, which leaves (B)", "B", 1),
        ("<answer>A</answer>", "A", 1),
        ("The answer must be A.", "A", 1),
        ("It is A.", "A", 1),
        ("So A is right", "A", 1),
        ("The answer is (D). Option A is incorrect.", "D", 1),
        ("Option A is wrong; choose option C", "C", 1),
        ("A quick check shows B", "B", 1),
        ("The answer is a matter of taste.", "A", 0),
        ("I think that I know.", "I", 0),
        ("The answer is C.", "B", 0),
        ("AB", "B", 0),
        ("Because", "B", 0),
        ("no idea", "B", 0),
    ],
)
def test_letters(completion: str, truth: Any, score: float) -> None:
    verdict = verify("multiple_choice", completion, truth)
    assert verdict.score == score, verdict.reason


@pytest.mark.parametrize("truth", ["B", 1, {"answer": "Paris"}, {"answer": 1}, '{"answer": "B"}'])
@pytest.mark.parametrize(
    ("completion", "score"),
    [("Paris", 1), ("It must be Paris.", 1), ("The answer is B", 1), ("Rome", 0), ("E", 0)],
)
def test_texts_of_choices(truth: Any, completion: str, score: float) -> None:
    assert verify("multiple_choice", completion, truth, choices=CITIES).score == (
        score if truth != {"answer": "Paris"} or completion else 0
    )


def test_the_longest_choice_that_ends_the_text_is_meant() -> None:
    choices = ["9", "dog", "hot dog", "29"]
    assert verify("multiple_choice", "The answer is 29.", "D", choices=choices).score == 1
    assert verify("multiple_choice", "I want a hot dog", "C", choices=choices).score == 1


@pytest.mark.parametrize("truth", ["Madrid", 26, -1, {"answer": None}, "AB", ["A"]])
def test_a_ground_truth_that_names_no_choice(truth: Any) -> None:
    with pytest.raises(VerifierError, match="multiple_choice needs"):
        get_verifier("multiple_choice").check_ground_truth(truth)
