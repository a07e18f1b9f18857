"""The command line. Every command imports what it needs when it runs, so `--help` stays instant."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from posttrain import __version__
from posttrain.cli.data import data, read_data_args
from posttrain.cli.doctor import doctor
from posttrain.cli.export import export
from posttrain.cli.options import (
    OVERRIDABLE,
    RecipePath,
    is_main_process,
    option,
    overrides_of,
    tell,
)
from posttrain.cli.serve import serve
from posttrain.errors import PosttrainError

app = typer.Typer(
    help="Post-train language models: SFT, DPO, reward models and RLVR from one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.command("export")(export)
app.command("serve")(serve)
app.command(**OVERRIDABLE)(doctor)

GRACE_SECONDS = 10


@app.command(**OVERRIDABLE)
def run(
    ctx: typer.Context,
    recipe: RecipePath,
    stage: Annotated[str | None, option("--stage", "Run this stage only.")] = None,
    from_stage: Annotated[str | None, option("--from_stage", "Run from this stage on.")] = None,
    smoke: Annotated[bool, option("--smoke", "Two steps per stage, tiny random model.")] = False,
    run_dir: Annotated[Path | None, option("--run_dir", "Default: runs/<name>.")] = None,
    hardware: Annotated[str | None, option("--hardware", "A name: recipes/hardware/.")] = None,
) -> None:
    """Run a recipe: its stages in order, an evaluation after each, and a report."""
    overrides = overrides_of(ctx, recipe, stage)
    from posttrain.pipeline import run as run_recipe

    try:
        run_recipe(
            recipe,
            overrides=overrides,
            stage=stage,
            from_stage=from_stage,
            smoke=smoke,
            run_dir=run_dir,
            hardware=hardware,
        )
    except KeyboardInterrupt as stop:
        if is_main_process():
            typer.echo("posttrain: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(128 + getattr(stop, "signum", signal.SIGINT)) from None


@app.command(**OVERRIDABLE)
def check(ctx: typer.Context, recipe: RecipePath) -> None:
    """Read a recipe and resolve every name in it; train nothing."""
    overrides = overrides_of(ctx, recipe)
    from posttrain.pipeline import check as check_recipe
    from posttrain.pipeline import read_recipe

    check_recipe(read_recipe(recipe, overrides), recipe)
    typer.echo(f"{recipe}: no fault found")


class EvalCommand(typer.core.TyperCommand):
    """Adds the names of the tasks to its help when the help is asked for."""

    def format_help(self, *args: Any) -> None:
        from posttrain.evals.tasks import TASKS

        self.epilog = f"Tasks: {', '.join(TASKS)}."
        super().format_help(*args)


@app.command("eval", cls=EvalCommand)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder.")],
    tasks: Annotated[str, option("--tasks", "Names of tasks, joined by commas.")],
    as_json: Annotated[bool, option("--json", "JSON on stdout instead of a table.")] = False,
    num_samples: Annotated[int | None, option("--num_samples", "Rows per task.", min=1)] = None,
    max_new_tokens: Annotated[int, option("--max_new_tokens", "Longest answer.", min=1)] = 512,
    batch_size: Annotated[int, option("--batch_size", "Prompts at a time.", min=1)] = 32,
    reference: Annotated[
        str | None, option("--reference", "Policy choosing answers: DPO's reward against this one.")
    ] = None,
    length_normalise: Annotated[
        bool, option("--length_normalise", "Policy choosing answers: log-probs per token.")
    ] = False,
) -> None:
    """Score a model on evaluation tasks."""
    with contextlib.redirect_stdout(sys.stderr):  # imports log too, and stdout is for the scores
        from posttrain.pipeline.processes import processes  # it quietens what comes next

        from posttrain.evals.run import evaluate_path  # isort: skip

        with processes():
            scores = evaluate_path(
                model,
                [name.strip() for name in tasks.split(",")],
                num_samples=num_samples,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                reference=reference,
                length_normalise=length_normalise,
                progress=tell,
            )
    if not is_main_process():
        return
    rows = [f"{t:24} {r['score']:.4f} ± {r['stderr']:.4f}  n={r['n']}" for t, r in scores.items()]
    typer.echo(json.dumps(scores, indent=2) if as_json else "\n".join(rows))


@app.command()
def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .jsonl.gz file.")],
    out: Annotated[Path, option("--out", "Where the scored rows go.")],
    verifier: Annotated[str | None, option("--verifier", "Instead of the rows' own.")] = None,
) -> None:
    """Score the responses in a file: each row gains `score` and `reason`."""
    from posttrain.evals.score import score_file

    rows, mean = score_file(file, out, verifier=verifier, show_progress=True)
    typer.echo(f"{out}: {rows} rows, mean score {mean:.4f}", err=True)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, option("--version", "Print the version.")] = False) -> None:
    if version:
        typer.echo(f"posttrain {__version__}")
        raise typer.Exit()


def main(argv: list[str] | None = None) -> None:
    """Run one command (a recipe instead means `run`) and exit: 0 done, 2 the user's mistake."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0].endswith((".yaml", ".yml")):
        args.insert(0, "run")
    args = read_data_args(args)
    try:
        app(args, prog_name="posttrain")
    except PosttrainError as error:
        _fail(str(error))
    except Exception as error:
        # safetensors and torch wrap the operating system's error in classes of their own.
        if getattr(error, "errno", None) != errno.ENOSPC and "No space left" not in str(error):
            raise
        where = getattr(error, "filename", None) or "the disk that is written to"
        _fail(f"no space left on {where}: free some, or write elsewhere (--run_dir, --out)")


def _fail(message: str) -> NoReturn:
    """Say what went wrong, once.

    All processes of a launch meet the same fault. Rank 0 tells; its end makes the launcher stop
    the others, which therefore wait, and speak only if the fault was theirs alone.
    """
    if not is_main_process():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(GRACE_SECONDS)
        message = f"[rank {os.environ['RANK']}] {message}"
    typer.echo(f"posttrain: {message}", err=True)
    sys.exit(2)
