"""Super-NaturalInstructions: a task file with its definition and examples (arXiv:2204.07705)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, dice, items, maybe_text, text, value
from posttrain.sources.adapters.superni_tasks import HELD_OUT, is_english, round_robin

# encoding -> (definition, positive examples, negative examples, explanations)
ENCODINGS: dict[str, tuple[bool, int, int, bool]] = {
    "definition": (True, 0, 0, False),
    "positive_2": (False, 2, 0, False),
    "definition_positive_2": (True, 2, 0, False),
    "definition_positive_2_negative_2": (True, 2, 2, False),
    "definition_positive_2_explained": (True, 2, 0, True),
}


def words(given: str) -> int:
    """How many words a text has, the unit of `max_words`."""
    return len(given.split())


@dataclass(frozen=True)
class SuperNI:
    """A task file of allenai/natural-instructions, as Tk-Instruct encodes it.

        {"Definition": ["You will be given a passage consisting of set of facts and a question …"],
         "Categories": ["Question Answering"], "Source": ["babi"], "Input_language": ["English"],
         "Positive Examples": [{"input": "Passage: Mary moved to the bathroom. …", "output":
         "bathroom", "explanation": "'Mary moved to the bathroom.' is a supporting fact …"}, …],
         "Negative Examples": […], "Instances": [{"id": "task083-22dc3830…", "input":
         "Passage: Sandra travelled to the office. …", "output": ["bathroom"]}, …],
         "__file__": "task083_babi_t1_single_supporting_fact_answer_generation.json", …}

    A row is the definition, examples and an instance's input; the answer is one reference, drawn.
    Whatever is drawn depends on the seed, the file and the instance, not on the order of reading.

    Attributes:
        encoding: one of `ENCODINGS`, or `all`: drawn for every row.
        max_instances: per task; `None`: all.
        choose: `random`, or `round_robin` over the answers, so that labels are balanced.
        max_words: examples are added one at a time while the whole has at most so many words; a
            body that is longer by itself has its input cut. 1,024 tokens are about 750 words.
        max_answer_words: longer answers are cut; `None`: never.
        count: measures a text for `max_words`, as a tokenizer does; `None`: its words.
        held_out: keep the twelve categories that are kept for evaluation.
        english_only: leave out tasks with another language in any field.
        task_name: begin with the task's name.
        seed: of every draw.
    """

    encoding: str = "definition_positive_2"
    max_instances: int | None = 100
    choose: str = "random"
    max_words: int = 750
    max_answer_words: int | None = None
    count: Callable[[str], int] | None = None
    held_out: bool = False
    english_only: bool = True
    task_name: bool = False
    seed: int = 123

    def __post_init__(self) -> None:
        if self.encoding not in (*ENCODINGS, "all"):
            known = ", ".join((*ENCODINGS, "all"))
            raise ValueError(f"encoding must be one of {known}, got {self.encoding!r}")
        if self.choose not in ("random", "round_robin"):
            raise ValueError(f"choose must be random or round_robin, got {self.choose!r}")

    def __call__(self, raw: Any) -> list[Row]:
        name = str(value(raw, "__file__") or "").removesuffix(".json")
        categories = value(raw, "Categories") or []
        if not self.held_out and isinstance(categories, list):
            found = [c for c in categories if isinstance(c, str) and c.lower() in HELD_OUT]
            if found:
                raise LeftOut(f"the task's category is held out, got {shown(found)}")
        if self.english_only and not is_english(raw):
            raise LeftOut("the task is not in English")
        instances = items(raw, "Instances")
        rng = dice(self.seed, name)
        if self.choose == "round_robin":
            instances = round_robin(instances, self.max_instances or len(instances), rng)
        elif self.max_instances is not None and len(instances) > self.max_instances:
            instances = rng.sample(instances, self.max_instances)
        return [self.row(raw, instance, name) for instance in instances]

    def row(self, task: Mapping[str, Any], instance: Any, name: str) -> Row:
        given = text(instance, "input")
        rng = dice(self.seed, name, value(instance, "id"), given)
        answer = rng.choice(references(instance)).strip()
        if self.max_answer_words is not None and words(answer) > self.max_answer_words:
            answer = " ".join(answer.split()[: self.max_answer_words])
        names = list(ENCODINGS) if self.encoding == "all" else [self.encoding]
        prompt = self.encode(task, given, name, rng.choice(names))
        return {"prompt": prompt, "completion": stopped(answer)}

    def encode(self, task: Mapping[str, Any], given: str, name: str, encoding: str) -> str:
        """The prompt of one instance."""
        with_definition, positive, negative, explained = ENCODINGS[encoding]
        head = f"{name}. " if self.task_name and name else ""
        if with_definition:
            head += f"Definition: {definition(task)}\n\n"
        shots = ""
        for kind, most in (("Positive", positive), ("Negative", negative)):
            listed = value(task, f"{kind} Examples") or []
            for i, example in enumerate(listed[:most] if isinstance(listed, list) else [], 1):
                shot = example_text(example, f"{kind} Example {i}", explained)
                if self.size(head + shots + shot + body(given)) > self.max_words:
                    break
                shots += shot
        return head + shots + body(self.cut(given, head))

    def size(self, given: str) -> int:
        return (self.count or words)(given)

    def cut(self, given: str, head: str) -> str:
        """The input, without the words at its end that do not fit."""
        if self.size(head + body(given)) <= self.max_words:
            return given
        parts = given.split()
        fits = bisect_right(
            range(len(parts) + 1),
            self.max_words,
            key=lambda n: self.size(head + body(" ".join(parts[:n]))),
        )
        return " ".join(parts[: max(fits - 1, 0)])


def definition(task: Mapping[str, Any]) -> str:
    """The definition, which is a list of one text (or several, of which the first counts)."""
    given = task.get("Definition")
    if isinstance(given, str):
        return stopped(given.strip())
    first = items(task, "Definition")[0]
    return stopped(text({"Definition": first}, "Definition").strip())


def references(instance: Any) -> list[str]:
    """The answers that an instance accepts."""
    given = value(instance, "output")
    if isinstance(given, str):
        return [given]
    return [text({"output": one}, "output") for one in items(instance, "output")]


def example_text(example: Any, title: str, explained: bool) -> str:
    """One worked example, numbered."""
    given, answer = (
        stopped(text(example, "input").strip()),
        stopped(text(example, "output").strip()),
    )
    why = maybe_text(example, "explanation").strip() if explained else ""
    explanation = f"Explanation: {stopped(why)}\n" if why else ""
    return f"{title} -\nInput: {given}\nOutput: {answer}\n{explanation}\n"


def body(given: str) -> str:
    """The instance to be solved, with its answer open."""
    return f"Now complete the following example -\nInput: {stopped(given.strip())}\nOutput: "


def stopped(given: str) -> str:
    """Text with a full stop where it ends without punctuation."""
    return given + "." if given and given[-1].isalnum() else given
