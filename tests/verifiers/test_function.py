from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers import compose, get_verifier
from posttrain.verifiers.function import Function


def length(completion: str) -> float:
    return len(completion) / 10


def of_row(completion: str, ground_truth: Any, level: int = 0, **row: Any) -> float | None:
    return None if row.get("skip") else float(completion == ground_truth) * level


def as_trl(prompts: list[Any], completions: list[Any], ground_truth: list[Any], **_: Any) -> Any:
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    pairs = zip(texts, ground_truth, strict=True)
    return [None if truth is None else float(text == truth) for text, truth in pairs]


@pytest.mark.parametrize("prompt", ["q", [{"role": "user", "content": "q"}]])
@pytest.mark.parametrize(
    ("function", "row", "score"),
    [(length, {}, 0.3), (of_row, {"level": 0.5}, 0.5), (as_trl, {}, 1.0)],
)
def test_functions_of_each_form(function: Any, row: Any, score: float, prompt: Any) -> None:
    verdict = Function(function)("abc", "abc", prompt=prompt, **row)
    assert verdict.score == pytest.approx(score)
    assert verdict.applies


def test_none_does_not_apply() -> None:
    assert not Function(of_row)("a", "a", skip=True).applies
    assert not Function(as_trl)("a", None).applies


def test_a_verdict_is_taken_as_it_is() -> None:
    verdict = Verdict(0.5, "half")
    assert Function(lambda completion: verdict)("a", "b") is verdict


def test_trls_own_reward() -> None:
    rewards = pytest.importorskip("trl.rewards")
    think = Function(rewards.think_format_reward)
    prompt = [{"role": "user", "content": "q"}]
    assert think("<think>\nhm\n</think>\n4", "4", prompt=prompt).score == 1.0
    assert think("4", "4", prompt=prompt).score == 0.0


def test_functions_by_path() -> None:
    assert compose({"function": "operator:eq"})("a", "a").score == 1.0
    assert compose(length)("ab", None).score == 0.2
    for path in ("operator:none", "no_such_module:f", ":f"):
        with pytest.raises(VerifierError, match=r"no function .* module:name"):
            compose({"function": path})
    with pytest.raises(VerifierError, match="is not a function but str"):
        compose({"function": "string:digits"})


def test_data_cannot_name_a_function() -> None:
    for ask in (get_verifier, compose):
        with pytest.raises(VerifierError, match="unknown verifier 'os:system'"):
            ask("os:system")


def test_what_a_function_must_return() -> None:
    with pytest.raises(VerifierError, match="a number, a Verdict or None, got 'x'"):
        Function(lambda completion: "x")("a", "b")
    with pytest.raises(VerifierError, match="one value per completion"):
        Function(lambda completions, **_: [])("a", "b")
