"""Generated text, conversations, pairs and problems small enough to be learnt on a laptop.

Two-step word problems with a one-line chain of thought (verifier `gsm8k`) and small writing
constraints (verifier `ifeval`). A tenth of all problems, chosen by the hash of the prompt, is held
out: no generator for training ever yields them. One row of each kind:

    text          "Anna has 34 apples. Anna buys 7 more and gives away 5. 34+7=41. 41-5=36. ..."
    conversation  user: "Anna has 34 apples. Anna buys 7 more and gives away 5. How many ..."
                  assistant: "34+7=41. 41-5=36. The answer is 36."
    preference    chosen: "34+7=41. 41-5=36. So the answer is 36."
                  rejected: "34+7=41. 41-5=36. The answer is 36."
    problem       ground_truth "36", verifier "gsm8k"
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from posttrain.formats import Row

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")
ITEMS = ("apples", "books", "coins", "stamps", "shells", "marbles", "cards", "pens")
ANIMALS = (
    "cat", "dog", "cow", "horse", "sheep", "goat", "duck", "fox", "bear", "wolf", "mouse", "hen",
)  # fmt: skip
HELD_OUT_SHARE = 10
CONSTRAINTS_IN_SFT = 0.2
OBEYED_IN_SFT = 0.4  # of the constraints: the likeliest answer to one forgets it
STEPS_IN_SFT = 0.8
POLITE_IN_SFT = 0.42
CONSTRAINTS_IN_RL = 0.75
CONSTRAINTS_IN_EVAL = 0.5
LISTS = 0.4  # of the constraints


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
        story = f"{name} has {a} {item}. {name} buys {b} more and gives away {c}."
        prompt = f"{story} How many {item} are left?"
        sums: tuple[tuple[int, str, int, int], ...] = (a, "+", b, total), (total, "-", c, left)
    elif shape == 1:
        story = f"A box holds {total} {item}. {name} takes {c} out and puts {b} in."
        prompt = f"{story} How many {item} are in the box?"
        sums = (total, "-", c, left), (left, "+", b, left + b)
    else:
        story = f"{name} sold {a} {item} on Monday and {b} on Tuesday."
        prompt = f"{story} How many {item} did {name} sell?"
        sums = ((a, "+", b, total),)
    return {"prompt": prompt, "steps": sums, "result": sums[-1][3]}


def steps(problem: dict[str, Any]) -> str:
    """The sums that lead to the result."""
    return " ".join(f"{x}{op}{y}={z}." for x, op, y, z in problem["steps"])


def conclusion(result: int, polite: bool = False) -> str:
    """How an answer ends; `polite` is the wording that the preference pairs prefer."""
    return f"So the answer is {result}." if polite else f"The answer is {result}."


def worked(problem: dict[str, Any], polite: bool = False) -> str:
    """The answer with its steps."""
    return f"{steps(problem)} {conclusion(problem['result'], polite)}"


def styled(problem: dict[str, Any], show_steps: bool, polite: bool) -> str:
    """An answer in one of the four styles: with or without steps, in either wording."""
    return worked(problem, polite) if show_steps else conclusion(problem["result"], polite)


def constraint_problem(rng: random.Random) -> dict[str, Any]:
    """A task with a constraint on its form that `ifeval` can check.

    `answer` meets it, `careless` forgets it and is right otherwise.
    """
    if rng.random() >= LISTS:
        return constrained_answer(rng, rng.randrange(3))
    count, word, last = rng.randint(2, 5), *rng.sample(ANIMALS, 2)
    prompt = f"Make a list of {count} bullets. All say {word} but the last, which says {last}."
    answer = "\n".join([f"* {word}"] * (count - 1) + [f"* {last}"])
    careless = "\n".join([f"* {word}"] * count)
    ids = ["detectable_format:number_bullet_lists", "startend:end_checker"]
    kwargs = [{"num_bullets": count}, {"end_phrase": last}]
    said = {"answer": answer, "careless": careless}
    return {"prompt": prompt, **said, "ids": ids, "kwargs": kwargs}


def constrained_answer(rng: random.Random, shape: int) -> dict[str, Any]:
    """A word problem whose answer must have an ending, quotation marks or a title."""
    problem = word_problem(rng)
    answer = worked(problem)
    if shape == 0:
        rule, answer = "End with Thank you!", f"{answer} Thank you!"
        form, given = "startend:end_checker", {"end_phrase": "Thank you!"}
    elif shape == 1:
        rule, answer = "Put double quotes around the whole answer.", f'"{answer}"'
        form, given = "startend:quotation", {}
    else:
        rule, answer = "Give the answer a title in <<>>.", f"<<Sums>> {answer}"
        form, given = "detectable_format:title", {}
    # form alone would reward empty answers
    content = {"keywords": [f"The answer is {problem['result']}."]}
    return {
        "prompt": f"{rule} {problem['prompt']}",
        "answer": answer,
        "careless": worked(problem),
        "ids": [form, "keywords:existence"],
        "kwargs": [given, content],
    }


def fresh(
    make: Callable[[random.Random], dict[str, Any]], rng: random.Random, held: bool
) -> dict[str, Any]:
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
            # numbers must be found by what they are, not by how far back they stand
            between = [rng.choice(ANIMALS) for _ in range(rng.choice((0, 0, 0, 1, 2, 3, 4)))]
            yield {"text": " ".join([f"{story}.", *between, worked(problem)])}
        else:
            count, word, last = rng.randint(2, 5), *rng.sample(ANIMALS, 2)
            bullets = [f"* {word}"] * (count - 1) + [f"* {last}"]
            yield {"text": f"{count} bullets of {word}, last {last}:\n" + "\n".join(bullets)}


def conversations(seed: int) -> Iterator[Row]:
    """SFT rows. As in collected data, some show no steps, and most forget a task's constraint."""
    rng = random.Random(seed)
    while True:
        if rng.random() < CONSTRAINTS_IN_SFT:
            task = fresh(constraint_problem, rng, False)
            obeyed = rng.random() < OBEYED_IN_SFT
            prompt, answer = task["prompt"], task["answer" if obeyed else "careless"]
        else:
            problem = fresh(word_problem, rng, False)
            answer = styled(problem, rng.random() < STEPS_IN_SFT, rng.random() < POLITE_IN_SFT)
            prompt = problem["prompt"]
        turns = ("user", prompt), ("assistant", answer)
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def preferences(seed: int, held: bool = False) -> Iterator[Row]:
    """Pairs: "So the answer is" is the preferred wording (two thirds), or the number is right."""
    rng = random.Random(seed)
    while True:
        problem = fresh(word_problem, rng, held)
        show_steps = rng.random() < STEPS_IN_SFT
        chosen = styled(problem, show_steps, True)
        if rng.random() < 2 / 3:
            rejected = styled(problem, show_steps, False)
        else:
            wrong = problem["result"] + rng.choice((-2, -1, 1, 2))
            rejected = chosen.replace(f"answer is {problem['result']}.", f"answer is {wrong}.")
        yield {"prompt": problem["prompt"], "chosen": chosen, "rejected": rejected}


def problems(seed: int, held: bool = False) -> Iterator[Row]:
    """Prompts with ground truth: a quarter word problems, else constraints; held out, half each."""
    rng = random.Random(seed)
    while True:
        if rng.random() < (CONSTRAINTS_IN_EVAL if held else CONSTRAINTS_IN_RL):
            task = fresh(constraint_problem, rng, held)
            truth = {"instruction_id_list": task["ids"], "kwargs": task["kwargs"]}
            yield {"prompt": task["prompt"], "ground_truth": truth, "verifier": "ifeval"}
        else:
            problem = fresh(word_problem, rng, held)
            yield {
                "prompt": problem["prompt"],
                "ground_truth": str(problem["result"]),
                "verifier": "gsm8k",
            }
