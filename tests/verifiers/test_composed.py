from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import compose


def boxed(completion: str) -> float:
    return float("\\boxed" in completion)


def silent(completion: str) -> None:
    return None


@pytest.mark.parametrize(
    ("completion", "gated", "free"),
    [(r"\boxed{4}", 1.0, 1.0), ("4", 0.8, 0.8), (r"\boxed{5}", 0.0, 0.2), ("5", 0.0, 0.0)],
)
def test_format_counts_only_where_the_answer_is_right(
    completion: str, gated: float, free: float
) -> None:
    parts = {"format": boxed, "answer": "math", "weights": {"answer": 0.8, "format": 0.2}}
    assert compose(parts)(completion, "4").score == pytest.approx(free)
    verdict = compose({**parts, "gate": {"format": "answer"}})(completion, "4")
    assert verdict.score == pytest.approx(gated)
    assert ("format: waits for answer" in verdict.reason) is (gated == 0)


def test_what_does_not_apply_has_no_weight() -> None:
    parts = {"answer": "math", "other": silent}
    assert compose(parts)("4", "4").score == 1.0
    assert not compose({"other": silent})("4", "4").applies
    behind = compose({**parts, "gate": {"answer": "other"}})
    assert behind("4", "4").score == 0.0


def test_parts_with_a_ground_truth_of_their_own() -> None:
    parts = compose({"answer": "math", "shape": "regex", "own": ["shape", "answer"]})
    truth = {"answer": "4", "shape": "^[0-9]$"}
    parts.check_ground_truth(truth)
    assert parts("4", truth).score == 1.0
    assert parts("x = 4", truth).score == 0.5
    with pytest.raises(VerifierError, match="needs an entry 'shape'"):
        parts.check_ground_truth({"answer": "4"})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "no verifier"),
        ({"weights": {}}, "no verifier"),
        ({"a": "mth"}, "did you mean 'math'"),
        ({"a": "math", "weights": {"b": 1}}, r"weights name \['b'\]; the parts are \['a'\]"),
        ({"a": "math", "weights": {"a": -1}}, "0 or more"),
        ({"a": "math", "weights": {"a": 0}}, "above 0"),
        ({"a": "math", "gate": {"a": "b"}}, "gates name"),
        ({"a": "math", "b": "gsm8k", "gate": {"a": "b", "b": "a"}}, "wait for each other"),
        ({"name": "code", "speed": 3}, "code has no setting"),
    ],
)
def test_what_is_wrong_is_said(spec: Any, why: str) -> None:
    with pytest.raises(VerifierError, match=why):
        compose(spec)


def test_one_verifier_with_settings() -> None:
    assert compose({"name": "math", "max_length": 1})(r"\boxed{10}", "9").score == 0.0
    limits = compose({"name": "code", "limits": {"wall_seconds": 2.5}})
    assert vars(limits)["limits"].wall_seconds == 2.5
