"""The evaluation prompts that training rows are checked against, unless the recipe says no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from posttrain.decontamination import (
    Decontaminator,
    Embed,
    eval_set,
    read_eval_file,
    read_settings,
)
from posttrain.mixture import Guard
from posttrain.pipeline.evaluate import prepare_tasks
from posttrain.recipe import Recipe


def guard_of(recipe: Recipe, read: Callable[[Recipe], list[Any]] = prepare_tasks) -> Guard | None:
    """The guard of a recipe; `None` where it is off or there is nothing to look for.

    Args:
        read: the tasks of a recipe with their rows. All rows count, also where a task evaluates a
            sample of them: another sample may be next.
    """
    settings = read_settings(recipe.decontaminate)
    if settings is None:
        return None
    sets = [eval_set(task.name, rows) for task, rows in read(without_samples(recipe))]
    sets += [read_eval_file(one.path, one.fields) for one in settings.against]
    if not sets:
        return None
    how = (settings.mode, settings.n, settings.threshold, settings.fields)
    embed = embedder(settings.embed) if settings.mode == "embedding" else None
    return Guard(settings, Decontaminator(sets, *how, embed))


def without_samples(recipe: Recipe) -> Recipe:
    """The recipe with every task whole."""
    if recipe.eval is None:
        return recipe
    tasks = tuple(replace(task, num_samples=None) for task in recipe.eval.tasks)
    return replace(recipe, eval=replace(recipe.eval, tasks=tasks))


def embedder(name: str) -> Embed | None:
    """What mode `embedding` compares with; `None`: the lexical one."""
    if name == "lexical":
        return None
    from posttrain.generation.embed import ModelEmbed

    return ModelEmbed.load(name)
