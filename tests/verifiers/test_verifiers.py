"""The name table, and what every verifier promises."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import pytest

from posttrain.errors import PosttrainError, VerifierError
from posttrain.verifiers import VERIFIERS, Verifier, get_verifier, verify
from posttrain.verifiers.ifeval_old import IFEvalOld
from posttrain.verifiers.judge import Judge
from posttrain.verifiers.string_match import StringMatch

GOLD = {
    "gsm8k": ("She sold 72 clips.", "48+24 = 72\n#### 72"),
    "math": (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    "string_match": ("Paris.", "paris"),
    "ifeval": (
        "no commas here",
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    ),
    "ifeval_old": ("no commas here", {"func_name": "validate_no_commas", "N": None}),
    "code": ("def f(x):\n    return x + 1", ["assert f(1) == 2"]),
    "ifbench": (
        "no-space",
        {"instruction_id_list": ["format:no_whitespace"], "kwargs": [{}]},
    ),
    "json_schema": ('{"a": 1}', {"type": "object", "required": ["a"]}),
    "judge": ("Paris.", "paris"),
    "multiple_choice": ("The answer is (B).", "B"),
    "regex": ("call 555-1234", "[0-9]{3}-[0-9]{4}"),
}
NEAR = {
    "gsm8k": "She sold 73 clips.",
    "math": r"So $x = \boxed{\frac{1}{3}}$.",
    "string_match": "Paris, France",
    "ifeval": "a comma, here",
    "ifeval_old": "a comma, here",
    "code": "def f(x):\n    return x",
    "ifbench": "a space",
    "json_schema": '{"b": 1}',
    "judge": "Rome",
    "multiple_choice": "The answer is (C).",
    "regex": "call 555 1234",
}
GARBAGE = [
    "\x00",
    "\ud800",
    "\\boxed{",
    "\\boxed",
    "$$$",
    "}{",
    "{" * 5000,
    "[" * 100_000,
    "\\frac{1}{0}",
    "\\frac{" * 2000,
    "9**9**9",
    "\\boxed{9^{9^{9}}}",
    "\\boxed{" * 10_000 + "1" + "}" * 10_000,
    "</think>",
    "<answer>",
    "\u0661\u0662",
    "1e999",
    "nan",
    "- " * 1000,
]


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds everything wrong, so that only the reference itself scores."""
    monkeypatch.setitem(VERIFIERS, "judge", Judge(lambda prompts: ["[[no]]"] * len(prompts)))


@pytest.mark.parametrize("name", VERIFIERS)
def test_gold_is_accepted_and_near_miss_and_empty_are_not(name: str) -> None:
    completion, truth = GOLD[name]
    assert verify(name, completion, truth).score == 1.0
    assert get_verifier(name)(completion, truth, prompt="ignored", source="x").score == 1.0
    for wrong in (NEAR[name], "", " \n", None, 5):
        verdict = verify(name, wrong, truth)
        assert verdict.score == 0.0
        assert verdict.reason


@pytest.mark.parametrize("name", VERIFIERS)
def test_ground_truth_may_be_json_text(name: str) -> None:
    completion, truth = GOLD[name]
    get_verifier(name).check_ground_truth(truth)
    assert verify(name, completion, json.dumps(truth)).score == 1.0


@pytest.mark.parametrize("name", VERIFIERS)
def test_thoughts_do_not_score(name: str) -> None:
    completion, truth = GOLD[name]
    assert verify(name, f"<think>{completion}</think>", truth).score == 0.0
    assert verify(name, f"<think>{completion}", truth).score == 0.0
    assert verify(name, f"<think>{NEAR[name]}</think>{completion}", truth).score == 1.0


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("truth", [None, "", "  ", [], {}, True, object(), {"a": 1}, [1, "x"]])
def test_unreadable_ground_truth_raises(name: str, truth: object) -> None:
    with pytest.raises(VerifierError, match=f"{name} needs"):
        get_verifier(name).check_ground_truth(truth)
    with pytest.raises(VerifierError):
        verify(name, "72", truth)


@pytest.mark.parametrize("name", VERIFIERS)
def test_garbage_scores_without_raising(name: str) -> None:
    verifier, truth = get_verifier(name), GOLD[name][1]
    draw = random.Random(0)
    alphabet = "01.9,-$\\{}()[]<>*#\"' \n\tabA^_!/=\u00e9\u4e2d"
    count = 5 if name == "code" else 100  # code starts processes for each
    drawn = ["".join(draw.choices(alphabet, k=draw.randint(1, 40))) for _ in range(count)]
    for completion in GARBAGE + drawn:
        verdict = verifier(completion, truth)
        assert 0.0 <= verdict.score <= 1.0
        assert verdict.reason


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("unit", ["1", "a", "$", "\\boxed{", "{", "\n", "*", ". ", "[[", "1,"])
def test_a_megabyte_takes_less_than_a_second(name: str, unit: str) -> None:
    verify(name, NEAR[name], GOLD[name][1])
    start = time.perf_counter()
    verify(name, unit * (1_000_000 // len(unit)), GOLD[name][1])
    assert time.perf_counter() - start < 1.0


def test_every_entry_is_a_verifier_and_names_ignore_case() -> None:
    assert list(VERIFIERS) == sorted(VERIFIERS) == sorted(GOLD)
    assert all(isinstance(verifier, Verifier) for verifier in VERIFIERS.values())
    assert get_verifier("MATH") is VERIFIERS["math"]
    assert get_verifier("mcq") is VERIFIERS["multiple_choice"]
    assert get_verifier("string_matcher") == StringMatch(tagged=True)
    assert get_verifier("IFEval_old_release") == IFEvalOld(strict_compat=True)


@pytest.mark.parametrize("name", ["gsm8", "preference", "", 3])
def test_unknown_name_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(VerifierError, match="gsm8k, ifbench, ifeval, ifeval_old, json_schema"):
        get_verifier(name)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(VerifierError, match="unknown verifier 'gsm8'; did you mean 'gsm8k'"):
        verify("gsm8", "72", "72")


def test_a_failing_verifier_scores_zero_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def check_ground_truth(self, ground_truth: object) -> None: ...

        def __call__(self, completion: str, ground_truth: object, **row: object) -> None:
            raise RecursionError("too deep")

    monkeypatch.setitem(VERIFIERS, "broken", Broken())
    verdict = verify("broken", "x", "y")
    assert (verdict.score, verdict.reason) == (
        0.0,
        "broken failed on the completion: RecursionError: too deep",
    )


def test_importing_is_light() -> None:
    heavy = "{'torch', 'sympy', 'math_verify', 'langdetect', 'datasets'}"
    code = f"import sys, posttrain.verifiers; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_missing_language_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    truth = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
    with pytest.raises(PosttrainError, match=r"langdetect.*posttrain\[eval\]"):
        get_verifier("ifeval").check_ground_truth(truth)
