"""Rollouts written down: `<output_dir>/rollouts/<step>-<process>.parquet`, one completion a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.trainers.rollouts import Rollout

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

FOLDER = "rollouts"


def keep(trainer: Rolling, rollouts: Sequence[Rollout]) -> Path | None:
    """Write a rollout down; the file, or `None` where this process has no part in it.

    `advantage` is null where it is credited to tokens, or comes from log-probs.
    """
    if not rollouts:
        return None
    step = trainer.state.global_step
    words, rows = trainer.processing_class, []
    for rollout in rollouts:
        said = words.decode(rollout.row["prompt_ids"], skip_special_tokens=False)
        for g, completion in enumerate(rollout.completions):
            known = rollout.advantages
            rows.append(
                {
                    "step": step,
                    "row": int(rollout.row["index"]),
                    "source": rollout.row.get("source") or "",
                    "verifier": rollout.row.get("verifier") or "",
                    "prompt": said,
                    "completion": trainer.text(completion),
                    "tokens": len(completion.ids),
                    "finished": completion.finished,
                    "reward": float(rollout.rewards[g]),
                    "advantage": None if known is None else float(known[g]),
                }
            )
    name = f"{step:06}-{trainer.accelerator.process_index}.parquet"
    path = Path(trainer.args.output_dir or ".") / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [("step", pa.int64()), ("row", pa.int64())]
    fields += [(n, pa.string()) for n in ("source", "verifier", "prompt", "completion")]
    fields += [("tokens", pa.int64()), ("finished", pa.bool_())]
    fields += [("reward", pa.float64()), ("advantage", pa.float64())]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
    return path
