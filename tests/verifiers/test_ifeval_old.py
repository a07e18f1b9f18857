from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import verify
from posttrain.verifiers.ifeval_old import FUNCTIONS, IFEvalOld

# function: (arguments, a response that it accepts, one that it just does not)
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "validate_choice": ({"options": ["yes", "no"]}, "I say yes.", "I saw yesterday."),
    "validate_end": ({"end_phrase": "The end."}, "So. The end.", "The end. So"),
    "validate_forbidden_words": ({"forbidden_words": ["Rock"]}, "a stone", "a rock"),
    "validate_frequency_capital_words": (
        {"N": 3, "quantifier": "around"},
        "ONE and TWO",
        "ONE alone",
    ),
    "validate_highlighted_sections": ({"N": 2}, "*one* *two*", "*one* two"),
    "validate_json_format": ({}, '{"a": 1}', '```json\n{"a": 1}\n```'),
    "validate_lowercase": ({}, "all small", "All small"),
    "validate_no_commas": ({}, "one; two", "one, two"),
    "validate_paragraphs": (
        {"N": 2, "first_word": "Second", "i": 2},
        "First.\n\nSecond thing.",
        "Second.\n\nFirst thing.",
    ),
    "validate_placeholders": ({"N": 2}, "[a] and [b]", "[a] and b"),
    "validate_quotation": ({}, '"Hello"', '"Hello'),
    "validate_repeat_prompt": ({"original_prompt": "Say hi"}, "Say hi. Hi!", "say hi. Hi!"),
    "validate_response_language": (
        {"language": "en"},
        "The cat sat on the mat and looked at the birds.",
        "Die Katze sitzt auf der Matte und schaut den Vögeln zu.",
    ),
    "validate_sections": (
        {"N": 2, "section_splitter": "Section"},
        "Section 1: a\nSECTION 2: b",
        "Section 1: a\nin this section we stop",
    ),
    "validate_title": ({}, "<<Sea>>\nBlue.", "<Sea>\nBlue."),
    "validate_two_responses": ({}, "one ****** two", "one ****** two ******"),
    "validate_uppercase": ({}, "ALL BIG", "ALL BIg"),
    "validate_word_constraint": (
        {"N": 20, "quantifier": "around"},
        " ".join(["word"] * 22),
        " ".join(["word"] * 23),
    ),
    "verify_bullet_points": ({"N": 2}, "* one\n- two", "* one\n- two\n- three"),
    "verify_keyword_frequency": ({"word": "war", "N": 2}, "War! No war.", "War and warm"),
    "verify_keywords": ({"keyword_list": ["sea", "sun"]}, "Sea and sunny", "Sea and son"),
    "verify_letter_frequency": ({"letter": "a", "N": 2}, "banal A", "banal a"),
    "verify_paragraph_count": ({"N": 2}, "one\n* * *\ntwo", "one\n* * *\ntwo\n* * *"),
    "verify_postscript": ({"postscript_marker": "P.S."}, "Bye. P.S. Call.", "Bye. P.S."),
    "verify_sentence_constraint": (
        {"N": 2, "quantifier": "at most"},
        "Wow! Nice.",
        "Wow! Nice. Really!",
    ),
}


def test_every_function_has_a_case() -> None:
    assert sorted(CASES) == sorted(FUNCTIONS)
    assert len(FUNCTIONS) == 25


@pytest.mark.parametrize("name", CASES)
def test_each_function_accepts_and_rejects(name: str) -> None:
    arguments, good, bad = CASES[name]
    truth = json.dumps({"func_name": name, **arguments, "unused": None})
    assert IFEvalOld()(good, truth).score == 1.0
    assert IFEvalOld()(bad, truth).score == 0.0
    assert IFEvalOld()("", truth).score == 0.0


@pytest.mark.parametrize(
    ("count", "quantifier", "score"),
    [
        (9, "at least", 0.0),
        (10, "at least", 1.0),
        (10, "at most", 1.0),
        (11, "at most", 0.0),
        (9, "around", 1.0),
        (11, "around", 1.0),
        (8, "around", 0.0),
    ],
)
def test_word_quantifiers(count: int, quantifier: str, score: float) -> None:
    truth = {"func_name": "validate_word_constraint", "N": 10, "quantifier": quantifier}
    assert IFEvalOld()("word " * count, truth).score == score


def test_a_sign_splits_sections_by_itself_and_options_may_be_text() -> None:
    truth = {"func_name": "validate_sections", "N": 2, "section_splitter": "###"}
    assert IFEvalOld()("### a\n### b", truth).score == 1.0
    assert IFEvalOld()("### a", truth).score == 0.0
    options = {"func_name": "validate_choice", "options": "(red / green)"}
    assert IFEvalOld()("green", options).score == 1.0
    assert IFEvalOld()("e", options).score == 0.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("[]", "ifeval_old needs a ground truth"),
        ({"instruction_id_list": [], "kwargs": []}, "use the verifier `ifeval`"),
        ({"func_name": "validate_no_comma"}, "the nearest is validate_no_commas"),
        ({"func_name": "validate_end"}, "validate_end takes end_phrase; got none"),
        ({"func_name": "validate_title", "N": 3}, "validate_title takes no arguments; got N"),
        (
            {"func_name": "validate_word_constraint", "N": 3, "quantifier": "less than"},
            "must be one of 'at least', 'around', 'at most'",
        ),
        (
            {"func_name": "validate_paragraphs", "N": 3, "first_word": "a", "i": 0},
            "`i` must be 1 or more",
        ),
    ],
)
def test_unreadable_ground_truth(truth: Any, message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        IFEvalOld().check_ground_truth(truth)


RELEASED = [
    ("validate_placeholders", {"N": 9}, "none"),
    ("validate_choice", {"options": ["yes", "no"]}, "ye"),
    ("verify_sentence_constraint", {"N": 1, "quantifier": "at most"}, "One! Two! Three!"),
    ("validate_sections", {"N": 2, "section_splitter": "x"}, "a x b"),
    ("validate_paragraphs", {"N": 1, "first_word": "be", "i": 1}, "Best".lower()),
    ("validate_highlighted_sections", {"N": 1}, "**"),
    ("validate_two_responses", {}, "a ******"),
    ("validate_title", {}, "<<>>"),
    ("validate_uppercase", {}, "123"),
    ("validate_lowercase", {}, "123"),
    ("validate_quotation", {}, '"'),
]


@pytest.mark.parametrize(("name", "arguments", "response"), RELEASED)
def test_the_releases_faults_on_request(name: str, arguments: Any, response: str) -> None:
    truth = {"func_name": name, **arguments}
    assert verify("ifeval_old", response, truth).score == 0.0
    assert verify("ifeval_old_release", response, truth).score == 1.0


def test_faults_of_the_release_that_refuse() -> None:
    around = {"func_name": "validate_frequency_capital_words", "N": 3, "quantifier": "around"}
    phrase = {"func_name": "verify_keyword_frequency", "word": "big dog", "N": 1}
    for response, truth in (("A B", around), ("a big dog", phrase)):
        assert verify("ifeval_old", response, truth).score == 1.0
        assert verify("ifeval_old_release", response, truth).score == 0.0
