"""Completions that an rlvr stage wrote down -> a sample of them, from its first step to its last.

Of a few steps a few prompts each, one of every source before a second one of any, with the best and
the worst of their completions. However many were written, so many rows are read of a step and so
many characters kept of a text; a file that is damaged is left out and noted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.evals.report.charts import number
from posttrain.evals.report.folder import as_number
from posttrain.evals.report.transcript import as_text, shorten

SHOWN_STEPS = 5
SHOWN_PROMPTS = 4  # of a step
MOST_ROWS = 512  # that are read of a step
MOST_FILES = 8  # of a step, one of each process, that are opened
AT_ONCE = 64  # rows in memory, while the best and worst are looked for
LONGEST_TEXT = 1500
NUMBERS = ("reward", "advantage", "tokens", "finished", "row")
TEXTS = ("completion", "prompt", "source", "verifier")
FILE = re.compile(r"(\d+)-(\d+)\.parquet")

Row = dict[str, Any]


@dataclass
class Asked:
    """A prompt with the best and the worst of its completions so far; the first of equal ones is
    the best and the last of them the worst, so that two are shown where there are two."""

    best: Row
    worst: Row
    count: int = 1

    def add(self, row: Row) -> None:
        self.count += 1
        if reward(row) > reward(self.best):
            self.best = row
        if reward(row) <= reward(self.worst):
            self.worst = row


@dataclass(frozen=True)
class Moment:
    """What is shown of the rollout before one step."""

    step: int
    asked: list[Asked]


@dataclass(frozen=True)
class Sample:
    """What is shown of a stage, how many rollouts it wrote down, and a note on damaged files."""

    moments: list[Moment]
    total: int
    note: str


def read_rollouts(folder: Path) -> Sample:
    """A sample of the rollouts in a folder."""
    files: dict[int, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        if found := FILE.fullmatch(path.name):
            files.setdefault(int(found[1]), []).append((int(found[2]), path))
    moments, faults = [], []
    for step in spaced(sorted(files), SHOWN_STEPS):
        paths = [path for _, path in sorted(files[step])][:MOST_FILES]
        asked: list[Asked] = []
        for path in paths:
            try:
                asked += prompts_in(path, MOST_ROWS // len(paths))
            except (OSError, ValueError, TypeError, pa.ArrowException) as error:
                faults.append(f"{path.name} ({str(error)[:200]})")
        if asked:
            moments.append(Moment(step, one_of_each(asked)))
    where = f"{folder.parent.name}/{folder.name}"
    note = f"{len(faults)} file(s) of {where} could not be read: {', '.join(faults[:3])}."
    return Sample(moments, len(files), note if faults else "")


def spaced(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of the steps, evenly from the first to the last."""
    if len(steps) <= count:
        return list(steps)
    return [steps[i * (len(steps) - 1) // (count - 1)] for i in range(count)]


def prompts_in(path: Path, most: int) -> list[Asked]:
    """The prompts of the first rows of a file; one whose rows are not all among them is left out,
    unless it is the only one."""
    with pq.ParquetFile(path) as file:
        found: list[Asked] = []
        for row in islice(rows_of(file), most):
            if found and found[-1].best["row"] == row["row"]:
                found[-1].add(row)
            else:
                found.append(Asked(row, row))
        return found[:-1] if file.metadata.num_rows > most and len(found) > 1 else found


def rows_of(file: pq.ParquetFile) -> Iterator[Row]:
    """Rows with their texts cut, a few in memory at a time."""
    for batch in file.iter_batches(batch_size=AT_ONCE, columns=[*NUMBERS, *TEXTS]):
        for row in batch.to_pylist():
            texts = {name: shorten(as_text(row.get(name)), LONGEST_TEXT) for name in TEXTS}
            yield {name: row.get(name) for name in NUMBERS} | texts


def one_of_each(asked: Iterable[Asked]) -> list[Asked]:
    """So many prompts as are shown: in their order, but a second one of a source later."""
    before: Counter[tuple[str, str]] = Counter()
    ranked = []
    for one in asked:
        kind = (one.best["source"], one.best["verifier"])
        ranked.append((before[kind], one))
        before[kind] += 1
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])[:SHOWN_PROMPTS]]


def reward(row: Row) -> float:
    value = as_number(row["reward"])
    return -1e300 if value is None else value


# --- cards ----------------------------------------------------------------------------------------


def moment_view(moment: Moment) -> dict[str, Any]:
    return {"step": f"{moment.step:,}", "cards": [asked_card(one) for one in moment.asked]}


def asked_card(asked: Asked) -> dict[str, Any]:
    """One prompt for the template, which alone may print its texts: they are hostile."""
    best, worst, several = asked.best, asked.worst, asked.count > 1
    low, high = number(as_number(worst["reward"])), number(as_number(best["reward"]))
    equal = several and low == high
    names = ("one", "one") if equal else ("best", "worst")
    labels = [f"{name} of {asked.count:,}" for name in names] if several else ["completion"]
    return {
        "title": " ".join(best["prompt"].split())[-160:],
        "rewards": f"{high}, all equal" if equal else f"{low} to {high}" if several else high,
        "prompt": best["prompt"],
        "about": [(name, best[name]) for name in ("source", "verifier") if best[name]],
        "answers": [
            (label, facts(row), row["completion"])
            for label, row in zip(labels, (best, worst), strict=False)
        ],
    }


def facts(row: Row) -> list[str]:
    """Reward, advantage where it is known, length, and whether the EOS is missing."""
    advantage, tokens = as_number(row["advantage"]), as_number(row["tokens"])
    said = [f"reward {number(as_number(row['reward']))}"]
    said += [] if advantage is None else [f"advantage {number(advantage)}"]
    said += [] if tokens is None else [f"{tokens:,.0f} tokens"]
    return said + (["cut off"] if row["finished"] is False else [])
