"""Generated text, conversations, pairs and problems small enough to be learnt on a laptop.

Two-step word problems with a one-line chain of thought (verifier `gsm8k`) and small writing
constraints (verifier `ifeval`). A tenth of all problems, chosen by the hash of the prompt, is held
out: no generator for training ever yields them. One row of each kind:

    text          "Anna has 34 apples. Anna gets 27 more. 34+27=61."
    conversation  user: "Anna has 34 apples. She buys 27 more and gives away 15. How many apples ..."
                  assistant: "34+27=61. 61-15=46. The answer is 46."
    preference    the worked answer is chosen; a bare or a slipped one is rejected
    problem       ground_truth "46", verifier "gsm8k"
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from posttrain.formats import Row

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")
ITEMS = ("apples", "books", "coins", "stamps", "shells", "marbles", "cards", "pens")
ANIMALS = ("cat", "dog", "cow", "horse", "sheep", "goat", "duck", "fox", "bear", "wolf", "mouse", "hen")
HELD_OUT_SHARE = 10
CONSTRAINTS_IN_SFT = 0.15
CONSTRAINTS_IN_RL = 0.5


def held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the evaluation set; a property of its text alone."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_SHARE == 0


def word_problem(rng: random.Random) -> dict[str, Any]:
    """A two-step problem: its prompt, the steps of the worked answer and the result."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    a, b, c = rng.randint(21, 79), rng.randint(2, 9), rng.randint(2, 9)
    total = a + b
    left = total - c
    shape = rng.randrange(3)
    if shape == 0:
        prompt = f"{name} has {a} {item}. {name} buys {b} more and gives away {c}. How many {item} are left?"
        sums = (a, "+", b, total), (total, "-", c, left)
    elif shape == 1:
        prompt = f"A box holds {total} {item}. {name} takes {c} out and puts {b} in. How many {item} are in the box?"
        sums = (total, "-", c, left), (left, "+", b, left + b)
    else:
        prompt = f"{name} sold {a} {item} on Monday and {b} on Tuesday. How many {item} did {name} sell?"
        sums = ((a, "+", b, total),)
    return {"prompt": prompt, "steps": sums, "result": sums[-1][3]}


def steps(problem: dict[str, Any]) -> str:
    """The sums that lead to the result."""
    return " ".join(f"{x}{op}{y}={z}." for x, op, y, z in problem["steps"])


def worked(problem: dict[str, Any]) -> str:
    """The answer with its steps."""
    return f"{steps(problem)} The answer is {problem['result']}."


def bare(problem: dict[str, Any]) -> str:
    """The answer without its steps."""
    return f"The answer is {problem['result']}."


def slipped(problem: dict[str, Any], rng: random.Random) -> str:
    """A worked answer whose last step is wrong."""
    *before, (x, op, y, z) = problem["steps"]
    wrong = z + rng.choice((-10, -2, -1, 1, 2, 10))
    return worked({"steps": (*before, (x, op, y, wrong)), "result": wrong})


def constraint_problem(rng: random.Random) -> dict[str, Any]:
    """A task with a constraint on its form that `ifeval` can check, and an answer that meets it."""
    shape = rng.randrange(5)
    if shape < 3:
        return constrained_answer(rng, shape)
    count, word, last = rng.randint(2, 5), *rng.sample(ANIMALS, 2)
    if shape == 3:
        prompt = f"Write {word} exactly {count} times and then {last} once. Use no commas."
        ids = ["keywords:frequency", "keywords:frequency", "startend:end_checker"]
        kwargs: list[dict[str, Any]] = [
            {"keyword": word, "frequency": count, "relation": "at least"},
            {"keyword": word, "frequency": count + 1, "relation": "less than"},
            {"end_phrase": last},
        ]
        return {"prompt": prompt, "answer": " ".join([word] * count + [last]), "ids": ids, "kwargs": kwargs}
    prompt = f"Make a list of {count} bullets. All say {word} but the last, which says {last}."
    answer = "\n".join([f"* {word}"] * (count - 1) + [f"* {last}"])
    ids = ["detectable_format:number_bullet_lists", "startend:end_checker"]
    return {"prompt": prompt, "answer": answer, "ids": ids, "kwargs": [{"num_bullets": count}, {"end_phrase": last}]}


def constrained_answer(rng: random.Random, shape: int) -> dict[str, Any]:
    """A word problem whose answer must have an ending, quotation marks or a title."""
    problem = word_problem(rng)
    answer = worked(problem)
    if shape == 0:
        rule, answer, form, given = "End with Thank you!", f"{answer} Thank you!", "startend:end_checker", {"end_phrase": "Thank you!"}
    elif shape == 1:
        rule, answer, form, given = "Put double quotes around the whole answer.", f'"{answer}"', "startend:quotation", {}
    else:
        rule, answer, form, given = "Give the answer a title in <<>>.", f"<<Sums>> {answer}", "detectable_format:title", {}
    content = {"keywords": [f"The answer is {problem['result']}."]}  # form alone would reward empty answers
    return {
        "prompt": f"{problem['prompt']} {rule}",
        "answer": answer,
        "ids": [form, "keywords:existence"],
        "kwargs": [given, content],
    }


def fresh(make: Callable[[random.Random], dict[str, Any]], rng: random.Random, held: bool) -> dict[str, Any]:
    """Draw until the problem is on the wanted side of the split."""
    while True:
        problem = make(rng)
        if held_out(problem["prompt"]) == held:
            return problem


def text(seed: int) -> Iterator[Row]:
    """Plain text: sums, stories that end in sums, and lists; no questions, no chat format."""
    rng = random.Random(seed)
    while True:
        kind = rng.random()
        if kind < 0.3:
            facts = []
            for _ in range(4):
                x, y = rng.randint(21, 79), rng.randint(2, 9)
                facts.append(f"{x}+{y}={x + y}." if rng.random() < 0.5 else f"{x + y}-{y}={x}.")
            yield {"text": " ".join(facts)}
        elif kind < 0.85:
            problem = fresh(word_problem, rng, False)
            story = problem["prompt"].rsplit(". ", 1)[0]
            yield {"text": f"{story}. {worked(problem)}"}
        else:
            count, word, last = rng.randint(2, 5), *rng.sample(ANIMALS, 2)
            if kind < 0.93:
                yield {"text": f"{word} {count} times, then {last}: {' '.join([word] * count + [last])}"}
            else:
                bullets = [f"* {word}"] * (count - 1) + [f"* {last}"]
                yield {"text": f"{count} bullets of {word}, last {last}:\n" + "\n".join(bullets)}


def conversations(seed: int) -> Iterator[Row]:
    """SFT rows. As in collected data, few show a constraint, and answers come worked or bare."""
    rng = random.Random(seed)
    while True:
        if rng.random() < CONSTRAINTS_IN_SFT:
            task = fresh(constraint_problem, rng, False)
            prompt, answer = task["prompt"], task["answer"]
        else:
            problem = fresh(word_problem, rng, False)
            prompt, answer = problem["prompt"], worked(problem) if rng.random() < 0.8 else bare(problem)
        yield {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def preferences(seed: int, held: bool = False) -> Iterator[Row]:
    """Pairs: people prefer to see the steps (two thirds), and steps that are right (one third)."""
    rng = random.Random(seed)
    while True:
        problem = fresh(word_problem, rng, held)
        rejected = bare(problem) if rng.random() < 2 / 3 else slipped(problem, rng)
        yield {"prompt": problem["prompt"], "chosen": worked(problem), "rejected": rejected}


def problems(seed: int, held: bool = False) -> Iterator[Row]:
    """Prompts with ground truth: half word problems, half constraints."""
    rng = random.Random(seed)
    while True:
        if rng.random() < CONSTRAINTS_IN_RL:
            task = fresh(constraint_problem, rng, held)
            truth = {"instruction_id_list": task["ids"], "kwargs": task["kwargs"]}
            yield {"prompt": task["prompt"], "ground_truth": truth, "verifier": "ifeval"}
        else:
            problem = fresh(word_problem, rng, held)
            yield {"prompt": problem["prompt"], "ground_truth": str(problem["result"]), "verifier": "gsm8k"}
