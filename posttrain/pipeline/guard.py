"""The evaluation prompts that training rows are checked against, unless the recipe says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posttrain.decontamination import (
    Decontamination,
    Decontaminator,
    EvalSet,
    read_eval_file,
    read_settings,
)
from posttrain.formats import Row
from posttrain.recipe import Recipe


@dataclass(frozen=True)
class Guard:
    """What is looked for in the rows, and what to do about a match."""

    settings: Decontamination
    finder: Decontaminator

    def record(self) -> dict[str, Any]:
        """For the manifest: the settings, and every evaluation set with its number of rows."""
        sets = {one.name: len(one.prompts) for one in self.finder.eval_sets}
        return {**asdict(self.settings), "eval_sets": sets}


def guard_of(recipe: Recipe, tasks: Sequence[tuple[Any, Sequence[Row]]]) -> Guard | None:
    """The guard of a recipe; `None` where it is off or there is nothing to look for.

    Args:
        tasks: the recipe's evaluation tasks with their rows.
    """
    settings = read_settings(recipe.decontaminate)
    if settings is None:
        return None
    sets = [EvalSet(task.name, [prompt_text(row) for row in rows]) for task, rows in tasks]
    sets += [read_eval_file(one.path, fields=one.fields) for one in settings.against]
    if not sets:
        return None
    return Guard(settings, Decontaminator(sets, settings.mode, settings.n, settings.threshold))


def prompt_text(row: Row) -> str:
    """What the user says in an evaluation row."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return prompt
    return "\n".join(turn["content"] for turn in prompt if turn["role"] == "user")
