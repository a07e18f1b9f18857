"""What an entry of a stage's `datasets:` may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from posttrain.recipe.declare import key


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of `datasets:`: where rows come from and how many of them to take."""

    path: str = key(
        help="Hub id, folder, file (.jsonl, .jsonl.gz, .json, .csv, .parquet, .arrow), or"
        " `generated:NAME`."
    )
    name: str | None = key(None, "Configuration of a hub data set.", aliases=("subset", "config"))
    split: str = key("train", "Split to read.")
    revision: str | None = key(None, "Hub revision (commit) to pin.")
    data_files: str | tuple[str, ...] | None = key(
        None, "Files to read inside the hub id or folder."
    )
    format: str | Mapping[str, Any] | None = key(
        None,
        "How rows are written: a name, or {name: ..., option: ...}; default: as the columns say.",
        aliases=("type", "formatting"),
    )
    columns: Mapping[str, str] = key(
        {}, "Our field -> their column, e.g. {prompt: question, ground_truth: answer}."
    )
    streaming: bool = key(
        False, "Read a hub data set as it downloads, without a copy in the hub's own cache."
    )
    license: str | None = key(
        None, "Licence, for the lock file; default: what the data set says of itself."
    )
    filters: tuple[Any, ...] = key((), "Filters of this source only, before the stage's.")
    source: str | None = key(
        None, "Name of this source in metrics and reports; default: from `path`."
    )
    verifier: str | None = key(None, "Verifier of every row (rlvr only); overrides the rows' own.")
    fraction: float | None = key(
        None, "Share of the rows to take, drawn at random.", above=0, at_most=1
    )
    num_samples: int | None = key(
        None, "Rows to take, drawn at random; more than there are repeats.", at_least=1
    )
    repeat: float | None = key(None, "Passes over the rows.", at_least=1)
    weight: float | None = key(
        None, "Share of the stage's `token_budget`, relative to the other weights.", above=0
    )
    seed: int | None = key(None, "Seed of a `generated:` source; default: the recipe's seed.")

    EXCLUSIVE: ClassVar[tuple[str, ...]] = ("fraction", "num_samples", "repeat", "weight")
