"""Which Super-NaturalInstructions tasks and instances to use, and whether a task file is sound."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

HELD_OUT = frozenset(
    {
        "textual entailment",
        "cause effect classification",
        "coreference resolution",
        "dialogue act recognition",
        "answerability classification",
        "overlap extraction",
        "word analogy",
        "keyword tagging",
        "question rewriting",
        "title generation",
        "data to text",
        "grammar error correction",
    }
)
LANGUAGES = ("Input_language", "Output_language", "Instruction_language")
FEWEST, MOST = 25, 6500
FEW_LABELS = 15
LEAST_ENTROPY = 0.8


def is_english(task: Mapping[str, Any]) -> bool:
    """Whether no language field names another language; a field that is absent says nothing."""
    given = [task.get(field) or [] for field in LANGUAGES]
    named = [n for names in given for n in (names if isinstance(names, list) else [names])]
    return all(name == "English" for name in named)


def split_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the tasks to train on, and of those of the held-out categories.

    A task that shares a `Source` with a held-out task is in neither list, nor is one that is not
    in English.

    Args:
        tasks: name -> task file.
    """
    english = {name: task for name, task in tasks.items() if is_english(task)}
    held = [
        name
        for name, task in english.items()
        if any(str(category).lower() in HELD_OUT for category in task.get("Categories") or [])
    ]
    sources = {str(source) for name in held for source in english[name].get("Source") or []}
    train = [
        name
        for name, task in english.items()
        if name not in held and not sources & set(map(str, task.get("Source") or []))
    ]
    return train, held


def label_of(instance: Any) -> str:
    """What stands for an instance's label: its first accepted answer."""
    answers = instance.get("output") if isinstance(instance, Mapping) else None
    return str(answers[0] if isinstance(answers, list) and answers else answers)


def round_robin(instances: Sequence[Any], number: int, rng: random.Random) -> list[Any]:
    """`number` instances, one of each label in turn, in random order within a label."""
    labels: dict[str, list[Any]] = {}
    for instance in instances:
        labels.setdefault(label_of(instance), []).append(instance)
    for group in labels.values():
        rng.shuffle(group)
    chosen: list[Any] = []
    for turn in range(max(map(len, labels.values()), default=0)):
        chosen += [group[turn] for group in labels.values() if turn < len(group)]
        if len(chosen) >= number:
            break
    return chosen[:number]


def validate(task: Mapping[str, Any]) -> list[str]:
    """What is wrong with a task file, by the checks of its repository; empty: nothing."""
    faults = []
    instances = [i for i in task.get("Instances") or [] if isinstance(i, Mapping)]
    if not FEWEST < len(instances) <= MOST:
        faults.append(f"it has {len(instances)} instances; more than {FEWEST}, at most {MOST}")
    for kind, least in (("Positive", 2), ("Negative", 1)):
        count = len(task.get(f"{kind} Examples") or [])
        if count < least:
            faults.append(f"it has {count} {kind.lower()} examples; at least {least}")
    inputs = Counter(str(i.get("input")) for i in instances)
    repeated = sum(count - 1 for count in inputs.values())
    if repeated:
        faults.append(f"{repeated} instances repeat the input of another")
    examples = {str(e.get("input")) for e in task.get("Positive Examples") or []}
    if examples & set(inputs):
        faults.append(f"{len(examples & set(inputs))} positive examples are instances too")
    return faults + label_faults(Counter(map(label_of, instances)))


def label_faults(labels: Counter[str]) -> list[str]:
    """Whether there is more than one answer, and few answers are about equally frequent."""
    if len(labels) < 2:
        return ["all instances have the same output"]
    if len(labels) >= FEW_LABELS:
        return []
    total = sum(labels.values())
    entropy = -sum(n / total * math.log(n / total) for n in labels.values()) / math.log(len(labels))
    if entropy <= LEAST_ENTROPY:
        return [f"its labels are uneven: normalised entropy {entropy:.2f}, above {LEAST_ENTROPY}"]
    return []
