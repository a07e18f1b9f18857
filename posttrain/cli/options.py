"""What the commands share: options, the recipe argument, overrides, lines of progress."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

# What follows RECIPE and is no option of ours is an override: key=value or --key value.
OVERRIDABLE: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "epilog": "Anything else overrides the recipe: stages.sft.seed=1, or --seed 1 if unambiguous.",
}


def option(name: str, help: str, **limits: Any) -> Any:  # with underscores, and with dashes
    return typer.Option(*dict.fromkeys((name, name.replace("_", "-"))), help=help, **limits)


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]


def tell(line: str) -> None:
    """A line of progress, of one process."""
    if is_main_process():
        typer.echo(line, err=True)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def overrides_of(ctx: typer.Context, recipe: Path, stage: str | None = None) -> list[str]:
    """The overrides, of a recipe that was read with them: its faults come before slow imports."""
    from posttrain.recipe import load_recipe, parse_override_args

    if recipe.name.startswith("-"):
        raise typer.BadParameter(f"the recipe comes first, before {recipe}", param_hint="RECIPE")
    overrides = parse_override_args(ctx.args)
    with warnings.catch_warnings(action="ignore"):  # the command reads it again, and tells then
        load_recipe(recipe, overrides, stage=stage)
    return overrides
