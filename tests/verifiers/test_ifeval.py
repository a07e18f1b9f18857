from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import loose_variants, verify
from posttrain.verifiers.ifeval import INSTRUCTIONS, IFEval, followed

ENGLISH = "The cat sat on the mat and looked at the birds in the old garden"
GERMAN = "Die Katze sitzt auf der Matte und schaut den Vögeln im alten Garten zu."

# instruction: (kwargs, a response that follows it, one that just does not)
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "STOP at the WELL-KNOWN sign",
        "STOP at the well-known sign",
    ),
    "change_case:english_capital": ({}, ENGLISH.upper(), ENGLISH.upper() + "s"),
    "change_case:english_lowercase": ({}, ENGLISH.lower(), ENGLISH),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Name a colour."},
        "Name a colour. Blue.",
        "Sure! Name a colour. Blue.",
    ),
    "combination:two_responses": ({}, "Yes.\n******\nNo.", "Yes.\n******\nYes."),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        "Dear [name], see [place].",
        "Dear [name], see [place.",
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        "Bye.\nP. P. S. Call me.",
        "Bye.\nP.S. Call me.",
    ),
    "detectable_format:constrained_response": ({}, "My answer is maybe.", "My answer is: maybe"),
    "detectable_format:json_format": ({}, '```json\n{"a": [1, 2]}\n```', '{"a": [1, 2}'),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\nx\nSECTION 2\ny",
        "SECTION 1\nx\nSECTION two\ny",
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        "List:\n* one\n- two\n**bold**",
        "List:\n* one\n- two\n* three",
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        "*one* and **two**",
        "*one* and ** **",
    ),
    "detectable_format:title": ({}, "<<The Sea>>\nBlue.", "<<>>\n<The Sea>"),
    "keywords:existence": ({"keywords": ["Sea", "c++"]}, "the sea in C++", "the sea in c+"),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "a rocket", "a Rock!"),
    "keywords:frequency": (
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        "War and war",
        "War and peace",
    ),
    "keywords:letter_frequency": (
        {"letter": "E", "let_frequency": 3, "let_relation": "less than"},
        "Even so",
        "Even eels",
    ),
    "language:response_language": ({"language": "de"}, GERMAN, ENGLISH),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        'Trees.\n\n"Elm," she said.',
        "Trees.\n\nElms are tall.",
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        "One.\n***\nTwo.\n***",
        "One.\n***\n***\nTwo.",
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"},
        "Mr. Li paid 3.50 dollars. Good!",
        "He paid. She left. Good!",
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "at least"},
        "one, two, three",
        "one, two",
    ),
    "punctuation:no_comma": ({}, "one; two", "one, two"),
    "startend:end_checker": (
        {"end_phrase": "That is all!"},
        "Hello. that is ALL!",
        "That is all! Bye.",
    ),
    "startend:quotation": ({}, ' "Hello." ', '"'),
}


def truth_of(*pairs: tuple[str, dict[str, Any] | None]) -> dict[str, Any]:
    return {"instruction_id_list": [i for i, _ in pairs], "kwargs": [kwargs for _, kwargs in pairs]}


def test_every_instruction_has_a_case() -> None:
    assert sorted(CASES) == sorted(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize("instruction", CASES)
def test_each_instruction_accepts_and_rejects(instruction: str) -> None:
    kwargs, good, bad = CASES[instruction]
    truth = truth_of((instruction, kwargs))
    assert IFEval()(good, truth).score == 1.0
    verdict = IFEval()(bad, truth)
    assert verdict.score == 0.0
    assert verdict.reason == f"0 of 1 constraints met; failed: {instruction}"
    assert IFEval()("", truth).score == 0.0


def test_the_score_is_the_share_of_constraints_met() -> None:
    truth = truth_of(
        ("punctuation:no_comma", {}),
        ("startend:quotation", None),
        ("length_constraints:number_words", {"num_words": 9, "relation": "less than", "x": None}),
    )
    verdict = IFEval()("two words", json.dumps(truth))
    assert verdict.score == pytest.approx(2 / 3)
    assert verdict.reason == "2 of 3 constraints met; failed: startend:quotation"


def test_whole_pays_for_all_constraints_or_for_nothing() -> None:
    ids = ["startend:end_checker", "keywords:existence"]
    kwargs = [{"end_phrase": "Thank you!"}, {"keywords": ["41"]}]
    truth = {"instruction_id_list": ids, "kwargs": kwargs}
    verdict = verify("ifeval_whole", "42. Thank you!", truth)
    assert (verdict.score, verify("ifeval", "42. Thank you!", truth).score) == (0.0, 0.5)
    assert verdict.reason == "1 of 2 constraints met; failed: keywords:existence"
    assert verify("ifeval_whole", "41. Thank you!", truth).score == 1.0


def test_other_spellings_of_the_ground_truth() -> None:
    wrapped = [{"instruction_id": ["punctuation:no_comma"], "kwargs": [None]}]
    assert IFEval()("fine", wrapped).score == 1.0
    assert IFEval()("fine", str(wrapped)).score == 1.0  # open-instruct writes Python, not JSON
    assert IFEval()("fine", {"instruction_id_list": ["punctuation:no_comma"]}).score == 1.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("no comma please", "ifeval needs a ground truth"),
        ({"func_name": "validate_no_commas"}, "use the verifier `ifeval_old`"),
        (truth_of(("punctuation:no_commas", {})), "the nearest is punctuation:no_comma,"),
        ({"instruction_id": [["startend:quotation"]]}, r"no instruction \['startend:quotation'\]"),
        ({"instruction_id": [{}]}, "no instruction {}"),
        ({**truth_of(("startend:quotation", {})), "kwargs": [{}, {}]}, "one entry in `kwargs`"),
        (truth_of(("startend:quotation", {"n": 1})), "takes no arguments; got n"),
        (truth_of(("startend:quotation", [3])), "must be a mapping"),
        (truth_of(("startend:end_checker", {})), "takes end_phrase; got none"),
        (truth_of(("startend:end_checker", {"end_phrase": " "})), "text that is not empty"),
        (truth_of(("keywords:existence", {"keywords": "a"})), "a list of texts"),
        (truth_of(("language:response_language", {"language": "xx"})), "`language` must be one of"),
        (
            truth_of(
                ("length_constraints:number_words", {"num_words": "x", "relation": "at least"})
            ),
            "`num_words` must be a whole number, got 'x'",
        ),
        (
            truth_of(("length_constraints:number_words", {"num_words": 5, "relation": "around"})),
            "`relation` must be one of 'at least', 'less than', got 'around'",
        ),
        (
            truth_of(
                (
                    "keywords:letter_frequency",
                    {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
                )
            ),
            "`letter` must be one character",
        ),
    ],
)
def test_unreadable_ground_truth(truth: Any, message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        IFEval().check_ground_truth(truth)


def test_loose_variants_are_the_eight() -> None:
    assert loose_variants("Sure!\n*a*\nb\nBye!") == [
        "Sure!\n*a*\nb\nBye!",
        "*a*\nb\nBye!",
        "Sure!\n*a*\nb",
        "*a*\nb",
        "Sure!\na\nb\nBye!",
        "a\nb\nBye!",
        "Sure!\na\nb",
        "a\nb",
    ]
    assert loose_variants("one line") == ["one line", "", "", ""] * 2


def test_loose_scoring_forgives_a_greeting_and_emphasis() -> None:
    truth = truth_of(("punctuation:no_comma", {}), ("startend:quotation", {}))
    response = 'Sure, here:\n*"Blue skies"*'
    assert followed(response, truth) == [
        ("punctuation:no_comma", False),
        ("startend:quotation", False),
    ]
    assert followed(response, truth, loose=True) == [
        ("punctuation:no_comma", True),
        ("startend:quotation", True),
    ]
    assert followed("one line", truth_of(("startend:quotation", {})), loose=True) == [
        ("startend:quotation", False)
    ]


def test_language_is_told_the_same_way_every_time() -> None:
    truth = truth_of(("language:response_language", {"language": "en"}))
    assert len({IFEval()("a no si die per", truth).score for _ in range(5)}) == 1
    chinese = truth_of(("language:response_language", {"language": "zh"}))
    assert IFEval()("今天天气很好,我们一起去公园散步吧。", chinese).score == 1.0
    assert IFEval()("12345", truth).score == 0.0


def test_every_published_row_is_readable(shared_rows: Callable[[str], list[Any]]) -> None:
    rows = shared_rows("ifeval/input_data.jsonl.gz")
    assert len(rows) == 433
    for row in rows:
        truth = {key: row[key] for key in ("instruction_id_list", "kwargs")}
        IFEval().check_ground_truth(truth)
        IFEval().check_ground_truth(json.dumps(truth))
        assert IFEval()("", truth).score == 0.0
