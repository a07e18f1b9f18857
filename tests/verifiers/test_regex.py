from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import get_verifier, verify
from posttrain.verifiers.regex import Regex


@pytest.mark.parametrize(
    ("completion", "truth", "score"),
    [
        ("call 555-1234", r"\d{3}-\d{4}", 1),
        ("call 555 1234", r"\d{3}-\d{4}", 0),
        ("a 7", "7", 1),
        ("a 7", "[0-9]", 1),
        ("Yes", {"pattern": "yes", "flags": "i"}, 1),
        ("Yes", {"pattern": "yes"}, 0),
        ("yes.", {"pattern": "yes", "mode": "fullmatch"}, 0),
        ("a\nb", {"pattern": "^b$", "flags": "m"}, 1),
        ("no way", {"pattern": "sorry", "negate": True}, 1),
        ("sorry", {"pattern": "sorry", "negate": True}, 0),
        ("a1", ["a", "1"], 1),
        ("a", ["a", "1"], 0),
        ("<think>7</think> none", "7", 0),
    ],
)
def test_patterns(completion: str, truth: Any, score: float) -> None:
    assert verify("regex", completion, truth).score == score


def test_a_catastrophic_pattern_ends_and_the_next_one_works() -> None:
    verdict = Regex(cpu_seconds=0.2)("a" * 60 + "!", "(a+)+$")
    assert (verdict.score, verdict.fault) == (0.0, "timeout")
    assert verdict.reason == "'(a+)+$' took too long to match"
    assert verify("regex", "aaa", "(a+)+$").score == 1.0


@pytest.mark.parametrize(
    "truth", ["(", {"pattern": "a", "flags": "q"}, {"pattern": "a", "mode": "find"}, {"pattern": 3}]
)
def test_a_ground_truth_that_is_no_pattern(truth: Any) -> None:
    with pytest.raises(VerifierError, match="regex needs"):
        get_verifier("regex").check_ground_truth(truth)
