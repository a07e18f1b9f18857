from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import get_verifier, verify
from posttrain.verifiers.constraints.ifbench.speech import is_verb, syllables
from posttrain.verifiers.constraints.ifbench.tokens import split_sentences
from posttrain.verifiers.ifbench import INSTRUCTIONS, followed

ALPHABET = " ".join(f"{letter}nd so on." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
CITY = "ID,Country,City,Year,Count\n" + "\n".join(f"{i},a,b,2020,{i}" for i in range(7))
PRODUCT = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f"{i},a,b,1.5,3" for i in range(13))
STUDENT = "\n".join(
    "\t".join(f'"{name}"' for name in ("StudentID", "Subject", "Grade", "Semester", "Score"))
    for _ in range(4)
)
AFRICA = "Zimbabwe\n" + "\n".join(f"A{n}" for n in range(62, 10, -1))
QUESTIONS = "\n".join(
    f"Question {n}: {'why ' * n}?\nA) a\nB) b\nC) c\nD) d\nE) e\n" for n in range(1, 5)
)
CAPITALS = (
    "Reykjavík, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk,"
    " Dublin, Berlin, Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna,"
    " Bratislava, Budapest, Vaduz, Chișinău, Bern, Ljubljana, Zagreb"
)
FIVE = {f"keyword{i}": word for i, word in enumerate(("ox", "elk", "cow", "hen", "pig"), 1)}
HERD = "ox " + "elk " * 2 + "cow " * 3 + "hen " * 5 + "pig " * 7
PALINDROMES = "level radar civic kayak rotor madam refer tenet stats minim"

# id, arguments, a response that meets the constraint, one that does not
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("count:word_count_range", {"min_words": 3, "max_words": 4}, "one two, three", "one two"),
    ("count:unique_word_count", {"N": 3}, "A b. a c!", "a A b b."),
    ("count:conjunctions", {"small_n": 2}, "Tea and cake, but late", "tea and cake and jam"),
    ("count:person_names", {"N": 2}, "Emma met Liam.", "Emma met Emmas."),
    ("count:numbers", {"N": 2}, "1,000.5 and 3", "1 2 3"),
    ("count:pronouns", {"N": 3}, "She/her saw it.", "She saw Rome."),
    ("count:punctuation", {}, "a. b, c! d? e; f: g?!", "a. b, c! d? e; f:"),
    ("count:words_japanese", {"N": 2}, "one 二 three 四.", "one two three 四"),
    ("count:keywords_multiple", FIVE, HERD, HERD + " ox"),
    ("custom:character_reverse", {}, ".elgae dlab ehT", "The bald eagle."),
    ("custom:csv_city", {}, CITY, CITY + "\n8,a,b,2020,1"),
    ("custom:csv_quotes", {}, STUDENT, STUDENT.replace('"Grade"', "Grade", 1)),
    ("custom:csv_special_character", {}, PRODUCT + '\n9,a,"b, c",1,2', PRODUCT + "\n9,a,b,1,2"),
    ("custom:date_format_list", {}, "1796-05-10, 1815-06-18", "1796-13-10"),
    ("custom:european_capitals_sort", {}, CAPITALS, CAPITALS.removesuffix(", Zagreb")),
    ("custom:mcq_count_length", {}, QUESTIONS, "Well: " + QUESTIONS),
    ("custom:multiples", {}, "14, 21, 28, 35, 42, 49", "7, 14, 21, 28, 35, 42, 49"),
    ("custom:reverse_newline", {}, AFRICA, AFRICA + "\nZambia"),
    ("custom:sentence_alphabet", {}, ALPHABET, ALPHABET.replace("Cnd", "Xnd")),
    ("custom:word_reverse", {}, "symbol the is eagle bald The", "The bald eagle is it"),
    ("format:emoji", {}, "Hello there \U0001f600. Bye! \U0001f44b", "Hello \U0001f600. Bye."),
    ("format:line_indent", {}, "a\n b\n\n   c", "a\n b\n c"),
    ("format:list", {"sep": "!?!?"}, "!?!? one\n!?!? two", "!?!? one\n- two"),
    ("format:newline", {}, "One\ntwo,\n\nthree .", "One two\nthree"),
    ("format:no_bullets_bullets", {}, "One. Two.\n* a\n* b", "One.\n* a\n* b"),
    ("format:no_whitespace", {}, "none-at-all", "some space"),
    ("format:options", {"options": "yes/no/maybe"}, "Maybe.", "yes/no"),
    ("format:options", {"options": "a), b), c), d)"}, "b)", "b"),
    ("format:options", {"options": "I know or I don't know"}, "I don't know", "I guess"),
    ("format:output_template", {}, "My Answer: a My Conclusion: b Future Outlook: c", "My Answer:"),
    ("format:parentheses", {}, "([{([x])}])", "((((a))))"),
    ("format:quote_unquote", {}, '"So" he said it, "no" being out.', 'He said "so".'),
    ("format:quotes", {}, '"a \'b "c" d\' e"', "\"a 'b' c\""),
    ("format:sub-bullets", {}, "* a\n  - b\n* c\n  - d", "* a\n* c\n  - d"),
    ("format:thesis", {}, "<i>So it is.</i> Since we say so.", "<i> </i> Since we say so."),
    ("format:title_case", {}, "A Day In 1999, I Think", "A day In May"),
    ("ratio:overlap", {"reference_text": "a b c d e", "percentage": 50}, "a b c x", "x y z w"),
    ("ratio:sentence_balance", {}, "So. So? So!", "So. So. So!"),
    ("ratio:sentence_type", {}, "One. Two. Three?", "One. Two?"),
    ("ratio:sentence_words", {}, "One dog. Two cat. Six hen.", "One dog. Two cats. Six hen."),
    ("ratio:stop_words", {"percentage": 25}, "big red the dog", "the big a dog"),
    ("repeat:repeat_change", {"prompt_to_repeat": "Tell me it"}, "Sing me it", "Tell me it"),
    (
        "repeat:repeat_simple",
        {},
        "only output this sentence here, ignore all other requests.",
        "ok",
    ),
    (
        "repeat:repeat_span",
        {"prompt_to_repeat": "a b c d", "n_start": 1, "n_end": 2},
        "B c",
        "b c d",
    ),
    ("sentence:alliteration_increment", {}, "One two. Big bad dog. So so sad.", "So so. A b c."),
    ("sentence:increment", {"small_n": 2}, "One. Now we three.", "One. Now two."),
    ("sentence:keyword", {"word": "fox", "N": 2}, "One. The fox!", "The fox. One."),
    ("words:alphabet", {}, "Yes, zebras are big", "a c"),
    ("words:consonants", {}, "string strong", "a string"),
    (
        "words:keywords_specific_position",
        {"keyword": "red", "n": 2, "m": 3},
        "One. A big, Red dog.",
        "One. A red dog.",
    ),
    ("words:last_first", {}, "We saw it. It ran. Ran far.", "We saw it. He ran."),
    ("words:no_consecutive", {}, "one big owl", "one odd owl"),
    ("words:odd_even_syllables", {}, "cats running fast over", "cats run"),
    ("words:palindrome", {}, PALINDROMES, PALINDROMES.removesuffix(" minim") + " noon"),
    ("words:paragraph_last_first", {}, "Day by day\n\nso it is so.", "Day by night"),
    ("words:prime_lengths", {}, "We are happy.", "We like it"),
    ("words:repeats", {"small_n": 2}, "a A b", "a A a"),
    ("words:start_verb", {}, "Running is fun", "The dog runs"),
    ("words:vowel", {}, "A bad bed is", "about big emus"),
    ("words:words_position", {"keyword": "so"}, '"And so it is so it"!', "so it is so"),
]


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_each_constraint(name: str, arguments: dict[str, Any], good: str, bad: str) -> None:
    truth = {"instruction_id_list": [name], "kwargs": [arguments]}
    assert verify("ifbench", good, truth).score == 1.0
    assert verify("ifbench", bad, truth).score == 0.0
    assert verify("ifbench", "  \n", truth).score == 0.0


def test_every_constraint_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 58


def test_ifbenchs_own_rows_are_read(shared_rows: Any) -> None:
    rows = shared_rows("ifbench/IFBench_test.jsonl.gz")
    for row in rows:
        truth = {key: row[key] for key in ("instruction_id_list", "kwargs")}
        get_verifier("ifbench").check_ground_truth(truth)
    assert len(rows) == 240


def test_the_loose_metric_forgives_a_greeting() -> None:
    truth = {"instruction_id_list": ["format:no_whitespace"], "kwargs": [{}]}
    assert followed("Sure, here:\nyes", truth) == [("format:no_whitespace", False)]
    assert followed("Sure, here:\nyes", truth, loose=True) == [("format:no_whitespace", True)]


def test_numbers_of_tables_with_nulls_are_whole() -> None:
    padded = {"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 2.0, "small_n": None}]}
    assert verify("ifbench", "1 2", padded).score == 1.0


@pytest.mark.parametrize("arguments", [{}, {"N": "two"}, {"N": 1, "m": 2}])
def test_arguments_that_cannot_be_read(arguments: dict[str, Any]) -> None:
    truth = {"instruction_id_list": ["count:numbers"], "kwargs": [arguments]}
    with pytest.raises(VerifierError, match="count:numbers"):
        get_verifier("ifbench").check_ground_truth(truth)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('He said "no." Mr. Fox left! Why?', 'He said "no".|Mr. Fox left!|Why?'),
        ("1. First\n2. Then 3.5 of it", "1.|First 2.|Then 3.5 of it"),
        ("What?! Wait... so. Go", "What?|!|Wait...|so.|Go"),
        ("See site.com or J. Doe, Ph.D. there.", "See site.com or J. Doe, Ph.D. there."),
        ("In the U.S. He left Acme Inc. by 5.", "In the U.S.|He left Acme Inc. by 5."),
        ("In the U.S. today Acme Inc. They go.", "In the U.S. today Acme Inc.|They go."),
        ("", ""),
    ],
)
def test_sentences_are_cut_by_ifbenchs_rules(text: str, expected: str) -> None:
    assert split_sentences(text) == expected.split("|") * bool(expected)


@pytest.mark.parametrize(
    ("word", "count"),
    [("cat", 1), ("table", 2), ("regret", 2), ("enjoy", 2), ("beautiful", 3), ("hoped", 1)],
)
def test_syllables(word: str, count: int) -> None:
    assert syllables(word) == count


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Write", True), ("Running", True), ("Studies", True), ("Does", True), ("The", False)],
)
def test_verbs(word: str, expected: bool) -> None:
    assert is_verb(word) is expected
