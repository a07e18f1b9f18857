"""`posttrain export`: a trained model as a folder that stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import option


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A stage's folder, checkpoint, adapter, model or id."),
    ],
    out: Annotated[Path, option("--out", "Folder that is written; must not be there yet.")],
    merge: Annotated[bool, option("--merge", "Fold the adapter into its base.")] = False,
    dtype: Annotated[str | None, option("--dtype", "float32, bfloat16 or float16.")] = None,
    base: Annotated[str | None, option("--base", "Model that the adapter goes on.")] = None,
) -> None:
    """Write a model folder, and compare its logits with what it was made from."""
    from posttrain.pipeline.export import export_model

    export_model(source, out, merge=merge, dtype=dtype, base=base)
    typer.echo(str(out))
