"""Evaluation tasks: what is asked, and that the gold answer scores 1."""

from __future__ import annotations

from posttrain.evals.run import summarise, task_rows
from posttrain.evals.tasks import SUITES, TASKS, get_task
from posttrain.recipe import Source, Task
from posttrain.sources import Opened


def rows_of(name: str, raw: list[dict[str, object]]) -> list[dict[str, object]]:
    def opener(source: Source, seed: int) -> Opened:
        return Opened(raw, None, None)

    return task_rows(get_task(name), Task(name=name), opener)


def test_gsm8k_asks_the_question_and_accepts_its_answer() -> None:
    raw = [{"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5.\n#### 5"}]
    (row,) = rows_of("gsm8k", list(raw))
    assert row["prompt"] == [{"role": "user", "content": "What is 2 + 3?"}]
    task = get_task("gsm8k")
    assert task.grade("It is 5.", row).score == 1
    assert task.grade("It is 6.", row).score == 0


def test_ifeval_is_loose_and_all_or_nothing() -> None:
    raw = [
        {
            "key": 1,
            "prompt": "Say hello twice, without commas.",
            "instruction_id_list": ["punctuation:no_comma", "keywords:frequency"],
            "kwargs": [{}, {"keyword": "hello", "frequency": 2, "relation": "at least"}],
        }
    ]
    (row,) = rows_of("ifeval", list(raw))
    task = get_task("ifeval")
    assert task.grade("hello hello", row).score == 1
    assert task.grade("hello", row).score == 0
    # the first line may be dropped: a preamble with a comma does not count against the answer
    assert task.grade("Sure, here it is:\nhello hello", row).score == 1


def test_tiny_tasks_bring_enough_rows_of_their_own() -> None:
    problems = task_rows(get_task("tiny"), Task(name="tiny"))
    pairs = task_rows(get_task("tiny_preference"), Task(name="tiny_preference"))
    assert len(problems) >= 250 and len(pairs) >= 250
    assert {row["verifier"] for row in problems} == {"gsm8k", "ifeval"}


def test_fewer_rows_are_the_same_rows_each_time() -> None:
    few = Task(name="tiny", num_samples=20)
    assert task_rows(get_task("tiny"), few) == task_rows(get_task("tiny"), few)


def test_suites_name_tasks() -> None:
    assert all(name in TASKS for names in SUITES.values() for name in names)


def test_standard_error_by_hand() -> None:
    # scores 1 0 1 1: mean .75, sample variance .25, stderr sqrt(.25 / 4)
    result = summarise([1.0, 0.0, 1.0, 1.0], "1", [])
    assert (result.score, result.stderr, result.n) == (0.75, 0.25, 4)
