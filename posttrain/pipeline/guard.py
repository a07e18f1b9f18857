"""The evaluation prompts that training rows are checked against, unless the recipe says no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.decontamination import (
    Decontaminator,
    Embed,
    eval_set,
    read_eval_file,
    read_settings,
)
from posttrain.formats import Row
from posttrain.mixture import Guard
from posttrain.recipe import Recipe


def guard_of(recipe: Recipe, tasks: Sequence[tuple[Any, Sequence[Row]]]) -> Guard | None:
    """The guard of a recipe; `None` where it is off or there is nothing to look for.

    Args:
        tasks: the recipe's evaluation tasks with their rows.
    """
    settings = read_settings(recipe.decontaminate)
    if settings is None:
        return None
    sets = [eval_set(task.name, rows) for task, rows in tasks]
    sets += [read_eval_file(one.path, one.fields) for one in settings.against]
    if not sets:
        return None
    how = (settings.mode, settings.n, settings.threshold, settings.fields)
    embed = embedder(settings.embed) if settings.mode == "embedding" else None
    return Guard(settings, Decontaminator(sets, *how, embed))


def embedder(name: str) -> Embed | None:
    """What mode `embedding` compares with; `None`: the lexical one."""
    if name == "lexical":
        return None
    from posttrain.generation.embed import ModelEmbed

    return ModelEmbed.load(name)
