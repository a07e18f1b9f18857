"""Prompts and planted completions of the RL benchmark: what a policy could have written to GSM8K.

A planted completion is a real GSM8K solution, to another problem, so lengths are those of real
answers. In two groups of five all rewards are equal, as in practice; in the others half are right.
The tokens of every completion are unlike any other's, so a reward is found by them.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

from cases.preparation import DATA, ROOT
from cases.trainers import MODEL, VOCABULARY

GROUP = 8  # completions per prompt
EQUAL = 0.4  # of the groups have rewards that are all equal
LONG = 700  # tokens of a prompt with examples before the question


def prepare(folder: str, groups: int, long: bool, unequal: bool) -> dict[str, Any]:
    """Write the model, the prompts (`rows.json`) and what is planted; returns what is in them."""
    sys.path.insert(0, str(ROOT))
    from posttrain.models import load_tokenizer
    from posttrain.scratch import new_model, new_tokenizer

    with gzip.open(DATA / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    texts = [row[field] for row in problems for field in ("question", "answer")]
    new_model(MODEL, new_tokenizer(texts, VOCABULARY, "tulu"), Path(folder), seed=0)
    tokenizer, draw = load_tokenizer(folder), random.Random(0)
    draw.shuffle(problems)
    answers = (row["answer"] for row in problems)
    rows = []
    equal = 0 if unequal else round(EQUAL * groups)
    for number in range(groups):
        question = f"<|user|>\n{problems.pop()['question']}\n<|assistant|>\n"
        while long and len(tokenizer(question).input_ids) < LONG:
            shown = problems.pop()
            question = f"{shown['question']}\n{shown['answer']}\n\n{question}"
        completions = [
            [*tokenizer(next(answers)).input_ids, tokenizer.eos_token_id] for _ in range(GROUP)
        ]
        right = [i % 2 for i in range(GROUP)]
        if number * equal % groups < equal:  # spread evenly over the updates
            right = [draw.randrange(2)] * GROUP
        ids = tokenizer(question).input_ids
        rows.append({"prompt": question, "ids": ids, "done": completions, "right": right})
    Path(folder, "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    return facts(rows)


def facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts that say what there is to compute: all of it, and where rewards differ."""
    useful = [row for row in rows if len(set(row["right"])) > 1]
    out: dict[str, Any] = {"groups": len(rows), "equal_groups": len(rows) - len(useful)}
    for name, some in (("", rows), ("useful_", useful)):
        lengths = [[len(done) for done in row["done"]] for row in some]
        prompts = [len(row["ids"]) for row in some]
        pairs = list(zip(prompts, lengths, strict=True))
        out[f"{name}tokens"] = sum(prompts) + sum(map(sum, lengths))
        out[f"{name}trained_tokens"] = sum(map(sum, lengths))
        out[f"{name}squares"] = sum(p * p + sum(n * n + 2 * n * p for n in ns) for p, ns in pairs)
    return out


def planted(folder: str) -> tuple[list[dict[str, Any]], dict[tuple[int, ...], float]]:
    """The rows, and the reward of every planted completion."""
    rows = json.loads(Path(folder, "rows.json").read_text(encoding="utf-8"))
    rewards = {
        tuple(done): float(right)
        for row in rows
        for done, right in zip(row["done"], row["right"], strict=True)
    }
    assert len(rewards) == GROUP * len(rows)
    return rows, rewards
