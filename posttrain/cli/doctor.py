"""`posttrain doctor`: what is here and works, and whether a recipe's loss depends on its splits."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import option, overrides_of


def doctor(
    ctx: typer.Context,
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="For --batch-invariance.")
    ] = None,
    batch_invariance: Annotated[
        bool, option("--batch_invariance", "Run the recipe's batches in every way of splitting.")
    ] = False,
    smoke: Annotated[bool, option("--smoke", "Tiny random model and stand-in rows.")] = False,
    rows: Annotated[int, option("--rows", "Rows of the batch.", min=2)] = 8,
    tolerance: Annotated[
        float, option("--tolerance", "Largest relative gap that is fine.", min=0)
    ] = 1e-5,
    as_json: Annotated[bool, option("--json", "JSON on stdout instead of lines.")] = False,
) -> None:
    """Look at this machine; with --batch-invariance RECIPE, at a recipe's gradients."""
    if not batch_invariance:
        if recipe is not None or ctx.args:
            raise typer.BadParameter("a recipe is looked at with --batch-invariance RECIPE")
        raise typer.Exit(examine(as_json))
    if recipe is None:
        raise typer.BadParameter("--batch-invariance needs a recipe", param_hint="RECIPE")
    raise typer.Exit(
        compare(recipe, overrides_of(ctx, recipe), smoke, rows, tolerance, as_json=as_json)
    )


def examine(as_json: bool) -> int:
    """Print one line per finding; 1 if something that everything needs is not there."""
    with contextlib.redirect_stdout(sys.stderr):
        from posttrain.pipeline.doctor import examine

        findings = examine()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        typer.echo("\n".join(map(str, findings)))
    return int(any(finding.state == "bad" for finding in findings))


def compare(
    recipe: Path, overrides: list[str], smoke: bool, rows: int, tolerance: float, *, as_json: bool
) -> int:
    """Print the gaps; 1 if one is above the tolerance."""
    with contextlib.redirect_stdout(sys.stderr):
        from posttrain.pipeline.processes import processes

        from posttrain.pipeline import batch_invariance  # isort: skip

        with processes():
            gaps = batch_invariance.batch_invariance(recipe, overrides, smoke=smoke, rows=rows)
    found = batch_invariance.as_json(gaps, tolerance)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return int(not found["ok"])
    typer.echo(f"{'stage':10}{'split':26}{'loss':>12}{'loss gap':>12}{'gradient gap':>14}  where")
    for g in gaps:
        numbers = f"{g.loss:12.6f}{g.loss_gap:12.1e}{g.gradient_gap:14.1e}"
        typer.echo(f"{g.stage:10}{g.split:26}{numbers}  {g.parameter}")
    verdict = "the same" if found["ok"] else "NOT the same"
    typer.echo(f"{verdict} however it is split: worst {found['worst']:.1e}, allowed {tolerance:g}")
    return int(not found["ok"])
