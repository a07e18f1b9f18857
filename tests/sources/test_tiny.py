"""The generated tasks: right answers, an honest split, rows that every stage can read."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from posttrain.formats import to_row
from posttrain.recipe import Source
from posttrain.sources import open_source, tiny
from posttrain.verifiers import verify

NUMBER = 600


def take(rows: Iterator[dict[str, Any]], number: int = NUMBER) -> list[dict[str, Any]]:
    return list(itertools.islice(rows, number))


def prompts(kind: str, rows: list[dict[str, Any]]) -> list[str]:
    read = [to_row(kind, row) for row in rows]
    return [row.get("messages", row.get("prompt"))[0]["content"] for row in read]


TRAINING = {
    "conversation": tiny.conversations,
    "preference": tiny.preferences,
    "problem": tiny.problems,
}


@pytest.mark.parametrize("kind", TRAINING)
def test_held_out_prompts_are_never_trained_on(kind: str) -> None:
    seen = prompts(kind, take(TRAINING[kind](3)))
    assert len(set(seen)) > NUMBER / 4
    assert not any(tiny.held_out(prompt) for prompt in seen)


@pytest.mark.parametrize("kind", ["preference", "problem"])
def test_evaluation_prompts_are_all_held_out(kind: str) -> None:
    seen = prompts(kind, take(TRAINING[kind](3, held=True)))
    assert all(tiny.held_out(prompt) for prompt in seen)


def test_a_tenth_is_held_out() -> None:
    rng = random.Random(5)
    drawn = {tiny.word_problem(rng)["prompt"] for _ in range(4000)}
    assert 0.08 < sum(map(tiny.held_out, drawn)) / len(drawn) < 0.12


@pytest.mark.parametrize("kind", ["text", *TRAINING])
def test_a_seed_is_a_sequence(kind: str) -> None:
    generator = tiny.text if kind == "text" else TRAINING[kind]
    assert take(generator(1), 20) == take(generator(1), 20)
    assert take(generator(1), 20) != take(generator(2), 20)


SUMS = re.compile(r"(\d+)([+-])(\d+)=(-?\d+)")


def wrong_sums(text: str) -> int:
    value = {"+": int.__add__, "-": int.__sub__}
    found = SUMS.findall(text)
    return sum(value[sign](int(a), int(b)) != int(c) for a, sign, b, c in found)


def test_sums_in_pretraining_text_are_right() -> None:
    texts = [row["text"] for row in take(tiny.text(2))]
    assert sum(len(SUMS.findall(text)) for text in texts) > NUMBER / 2
    assert not any(map(wrong_sums, texts))


def test_worked_answers_are_right() -> None:
    rng = random.Random(8)
    for _ in range(NUMBER):
        problem = tiny.word_problem(rng)
        answer, result = tiny.worked(problem), str(problem["result"])
        assert SUMS.findall(answer) and wrong_sums(answer) == 0
        assert verify("gsm8k", answer, result).score == 1
        for show_steps, polite in itertools.product((True, False), repeat=2):
            assert verify("gsm8k", tiny.styled(problem, show_steps, polite), result).score == 1


def test_a_problem_worked_by_hand() -> None:
    problem = {"steps": ((34, "+", 7, 41), (41, "-", 5, 36)), "result": 36}
    assert tiny.worked(problem) == "34+7=41. 41-5=36. The answer is 36."
    assert tiny.styled(problem, show_steps=False, polite=True) == "So the answer is 36."


def test_constraints_accept_their_own_answer_and_no_empty_one() -> None:
    rng = random.Random(9)
    for _ in range(NUMBER):
        task = tiny.constraint_problem(rng)
        truth = {"instruction_id_list": task["ids"], "kwargs": task["kwargs"]}
        verdict = verify("ifeval", task["answer"], truth)
        assert verdict.score == 1, (task, verdict)
        assert verify("ifeval", "", truth).score < 1


def test_a_careless_answer_is_right_but_for_the_constraint() -> None:
    rng = random.Random(9)
    for _ in range(NUMBER):
        task = tiny.constraint_problem(rng)
        truth = {"instruction_id_list": task["ids"], "kwargs": task["kwargs"]}
        assert verify("ifeval_whole", task["careless"], truth).score == 0
        assert verify("ifeval", task["careless"], truth).score == 0.5  # one of two


def test_few_sft_rows_obey_a_constraint_and_most_forget_it() -> None:
    rng, obeyed = random.Random(3), []
    answers = {}
    for _ in range(30_000):
        task = tiny.constraint_problem(rng)
        answers[task["prompt"]] = task["answer"]
    rows = take(tiny.conversations(8), 4000)
    for row in rows:
        asked, said = (turn["content"] for turn in row["messages"])
        if asked.startswith(("Make a list", "End with", "Put double", "Give the")):
            form = {"E": said.endswith("Thank you!"), "P": said[0] == '"', "G": said[0] == "<"}
            met = said == answers[asked] if asked in answers else form.get(asked[0])
            obeyed += [] if met is None else [met]
    assert 0.18 < len(obeyed) / 4000 < 0.22
    assert 0.35 < sum(obeyed) / len(obeyed) < 0.45


def test_lists_are_as_many_of_the_constraints_in_sft_as_in_rl() -> None:
    asked = [p for p in prompts("problem", take(tiny.problems(8), 2000)) if p.startswith("Make a")]
    shown = prompts("conversation", take(tiny.conversations(8), 4000))
    few = [p for p in shown if p.startswith("Make a")]
    assert 0.26 < len(asked) / 2000 < 0.34  # 0.75 x 0.4
    assert 0.065 < len(few) / 4000 < 0.095  # 0.2 x 0.4


def test_sums_stand_at_many_distances_from_their_story() -> None:
    animals = re.compile(r"\. ((?:[a-z]+ )*)(\d+[+-])")
    stories = [row["text"] for row in take(tiny.text(4), 2000) if "Monday" in row["text"]]
    words = [len(found[1].split()) for text in stories if (found := animals.search(text))]
    assert len(words) == len(stories) > 200
    shares = [words.count(n) / len(words) for n in range(5)]
    assert sum(shares) == 1 and 0.35 < shares[0] < 0.5 and min(shares[1:]) > 0.08


def test_every_problem_has_a_truth_that_its_verifier_reads() -> None:
    rows = take(tiny.problems(4))
    assert {row["verifier"] for row in rows} == {"gsm8k", "ifeval"}
    for row in rows:
        problem = to_row("problem", row)
        assert verify(problem["verifier"], "", problem["ground_truth"]).score < 1


def test_pairs_prefer_the_wording_or_the_right_number() -> None:
    wording = 0
    for row in take(tiny.preferences(6)):
        chosen, rejected = row["chosen"], row["rejected"]
        assert "So the answer is" in chosen and wrong_sums(chosen) == 0
        same_number = chosen.rsplit(" ", 1)[1] == rejected.rsplit(" ", 1)[1]
        assert same_number == ("So the answer is" not in rejected)
        wording += same_number
    assert 0.6 < wording / NUMBER < 0.74


def test_a_source_has_a_seed_of_its_own() -> None:
    def rows(seed: int | None, recipe_seed: int) -> Any:
        source = Source(path="generated:tiny_text", num_samples=5, seed=seed)
        return list(open_source(source, recipe_seed).rows)

    assert rows(None, 1) == rows(1, 2) != rows(None, 2)
