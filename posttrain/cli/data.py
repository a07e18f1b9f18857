"""`posttrain data ...`: build, look at, lock and clean what a recipe trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import OVERRIDABLE, RecipePath, option, overrides_of, tell

data = typer.Typer(
    help="Build, look at, lock and clean what a recipe trains on.", no_args_is_help=True
)
LOCKED = "--locked"
AGAINST = "--against"


def read_data_args(args: list[str]) -> list[str]:
    """What the option parser does not know: `--locked` alone, and several files after `--against`.

    `--locked` alone means the nearest mixture.lock.
    """
    if args[:1] != ["data"]:
        return args
    out: list[str] = []
    option = ""
    for i, arg in enumerate(args):
        if option == AGAINST and out[-1] != AGAINST and not arg.startswith("-"):
            out.append(AGAINST)
        out.append(arg)
        option = arg if arg.startswith("-") else option
        following = args[i + 1] if i + 1 < len(args) else "-"
        file = following.endswith(".lock") or Path(following).is_file()
        if arg == LOCKED and not file:
            out.append("")
    return out


@data.command("build", **OVERRIDABLE)
def build(
    ctx: typer.Context,
    recipe: RecipePath,
    out: Annotated[Path, option("--out", "Folder that gets one folder per stage.")],
    text: Annotated[bool, option("--text", "Stop before tokens.")] = False,
    locked: Annotated[
        str | None,
        option(LOCKED, "Fail unless the result equals this mixture.lock, or the nearest."),
    ] = None,
    dropped: Annotated[bool, option("--dropped", "Write the dropped rows too.")] = False,
) -> None:
    """Build the data of every stage, with its manifest and lock file."""
    overrides = overrides_of(ctx, recipe)
    from posttrain.pipeline.data_commands import build_data

    build_data(recipe, out, overrides=overrides, text=text, locked=locked, dropped=dropped)


@data.command("show", **OVERRIDABLE)
def show(ctx: typer.Context, recipe: RecipePath) -> None:
    """Show rows of every source as the model will see them, trained tokens marked."""
    overrides = overrides_of(ctx, recipe)
    from posttrain.pipeline.data_commands import show_data

    show_data(recipe, overrides=overrides)


@data.command("stats", **OVERRIDABLE)
def stats(
    ctx: typer.Context,
    recipe: RecipePath,
    as_json: Annotated[bool, option("--json", "JSON on stdout instead of tables.")] = False,
    out: Annotated[Path | None, option("--out", "An HTML page with the histograms.")] = None,
) -> None:
    """Count rows, tokens, drops and lengths of every source; nothing is trained."""
    overrides = overrides_of(ctx, recipe)
    from posttrain.pipeline.data_commands import stats_data

    found = stats_data(recipe, overrides=overrides)
    if out is not None:
        from posttrain.evals.report.data import write_data_report

        write_data_report(found, out)
        tell(f"page: {out}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from posttrain.pipeline.stats import tables

    tables(found)


@data.command("lock", **OVERRIDABLE)
def lock(
    ctx: typer.Context,
    recipe: RecipePath,
    out: Annotated[Path | None, option("--out", "Default: beside RECIPE.")] = None,
) -> None:
    """Write the lock file of a recipe's data: revisions, hashes, counts and order."""
    overrides = overrides_of(ctx, recipe)
    from posttrain.pipeline.data_commands import lock_data

    tell(f"lock file: {lock_data(recipe, out, overrides=overrides)}")


@data.command("decontaminate")
def decontaminate(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="A .jsonl or .jsonl.gz file.")],
    against: Annotated[list[Path], option(AGAINST, "Evaluation files.")],
    out: Annotated[Path, option("--out", "Where the clean rows go.")],
    report: Annotated[Path, option("--report", "Where the matches go, as JSON.")],
    n: Annotated[int, option("--n", "Words of an n-gram.", min=1)] = 8,
    threshold: Annotated[
        float, option("--threshold", "Least share of an evaluation row.", min=0, max=1)
    ] = 0.5,
    mode: Annotated[str, option("--mode", "ngram, exact or embedding.")] = "ngram",
) -> None:
    """Drop the rows of a file that hold evaluation prompts, and report every match."""
    from posttrain.decontamination import decontaminate_file
    from posttrain.pipeline.counting import Counting

    with Counting(f"{train}: comparing") as counting:
        made = decontaminate_file(
            train,
            against,
            n=n,
            threshold=threshold,
            mode=mode,
            out=out,
            report=report,
            progress=lambda rows: counting("rows", rows),
        )
    tell(f"{out}: {made['rows_kept']:,} of {made['rows_read']:,} rows kept; matches: {report}")


@data.command("dedup")
def dedup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .jsonl.gz file.")],
    out: Annotated[Path, option("--out", "Where the rows that stay go.")],
    mode: Annotated[str, option("--mode", "near (MinHash, verified) or exact.")] = "near",
    threshold: Annotated[
        float, option("--threshold", "Least Jaccard similarity of duplicates.", min=0, max=1)
    ] = 0.7,
    report: Annotated[Path | None, option("--report", "Where the groups go, as JSON.")] = None,
) -> None:
    """Keep one row of every group of duplicates in a file."""
    from posttrain.pipeline.dedup import dedup_rows

    rows, kept = dedup_rows(file, out, mode=mode, threshold=threshold, report=report)
    tell(f"{out}: {kept:,} of {rows:,} rows kept")
