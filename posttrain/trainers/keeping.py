"""Rollouts written down: `<output_dir>/rollouts/<step>-<process>.parquet`, one completion a row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.trainers.rollouts import Rollout

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

FOLDER = "rollouts"
FIELDS = pa.schema(
    [
        ("step", pa.int64()),
        ("row", pa.int64()),
        ("source", pa.string()),
        ("verifier", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("tokens", pa.int64()),
        ("finished", pa.bool_()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
    ]
)
ROWS_TOGETHER = 64  # in a row group, at least: who reads a few rows need not decode all


def keep(trainer: Rolling, rollouts: Sequence[Rollout]) -> Path | None:
    """Write a rollout down; the file, or `None` where this process has no part in it.

    `advantage` is null where it is credited to tokens, or comes from log-probs. The file is written
    aside and renamed, so one that has its name is whole; completions of one prompt follow each
    other.
    """
    if not rollouts:
        return None
    rows = [row for rollout in rollouts for row in rows_of(trainer, rollout)]
    name = f"{trainer.state.global_step:06}-{trainer.accelerator.process_index}.parquet"
    path = Path(trainer.args.output_dir or ".") / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{name}.tmp")
    table = pa.Table.from_pylist(rows, schema=FIELDS)
    pq.write_table(table, aside, row_group_size=ROWS_TOGETHER)
    os.replace(aside, path)
    return path


def rows_of(trainer: Rolling, rollout: Rollout) -> list[dict[str, Any]]:
    """A row for each completion of a prompt."""
    known, row = rollout.advantages, rollout.row
    said = trainer.processing_class.decode(row["prompt_ids"], skip_special_tokens=False)
    return [
        {
            "step": trainer.state.global_step,
            "row": int(row["index"]),
            "source": row.get("source") or "",
            "verifier": row.get("verifier") or "",
            "prompt": said,
            "completion": trainer.text(completion),
            "tokens": len(completion.ids),
            "finished": completion.finished,
            "reward": float(rollout.rewards[g]),
            "advantage": None if known is None else float(known[g]),
        }
        for g, completion in enumerate(rollout.completions)
    ]
