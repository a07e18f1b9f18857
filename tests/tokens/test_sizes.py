"""Sizes of rows that are not trained on: what the same rows measure when nothing cuts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.mixture import build_mixture
from posttrain.store import Store
from posttrain.tokens import Tokenizer
from posttrain.tokens.sizes import dropped_sizes, row_sizes
from posttrain.tokens.stores import Job, token_store

FIELDS = {
    "text": ("input_ids",),
    "conversation": ("input_ids",),
    "preference": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "problem": ("prompt_ids",),
}


def raw(kind: str, i: int) -> dict[str, Any]:
    question, answer = "red " * (i + 1), "blue " * (2 * i + 1)
    makers: dict[str, dict[str, Any]] = {
        "text": {"text": question},
        "conversation": {"prompt": question, "completion": answer},
        "preference": {"prompt": question, "chosen": answer, "rejected": f"a {answer}"},
        "problem": {"prompt": question, "ground_truth": "7", "verifier": "string_match"},
    }
    return makers[kind]


def stored(kind: str, rows: list[Any], folder: Path, filters: tuple[Any, ...] = ()) -> Store:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mixture = build_mixture([{"path": str(path)}], kind, filters=filters, bad_rows="drop")
    return mixture.parts[0].store


def quiet(rows: int) -> None:
    return None


@pytest.mark.parametrize("kind", FIELDS)
def test_every_way_of_counting_gives_the_whole_length(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [raw(kind, i) for i in range(9)]
    store = stored(kind, rows, tmp_path)
    whole = Tokenizer(tokenizer, 100_000).each(
        kind, [json.loads(store.read("row", i)) for i in range(9)]
    )
    sizes = [sum(len(row[name]) for name in FIELDS[kind]) for row in whole]  # type: ignore[index]
    short = Job(store, "s", kind, Tokenizer(tokenizer, 30, "drop", 20))
    assert row_sizes(short, np.arange(9), 1, quiet).tolist() == sizes
    assert row_sizes(short, np.array([2, 7]), 1, quiet).tolist() == [sizes[2], sizes[7]]
    made = token_store(short, np.array([0, 3, 8]), 1, quiet)  # whatever is cut or left out
    assert made.column("sizes").tolist() == [sizes[0], sizes[3], sizes[8]]


def test_dropped_rows_are_counted_by_step(tokenizer: Any, tmp_path: Path) -> None:
    rows = [raw("conversation", i) for i in range(6)]
    lines = [*rows, {"prompt": 3}, {"completion": "alone"}]
    store = stored("conversation", lines, tmp_path, ({"name": "length", "max": 10},))
    job = Job(store, "s", "conversation", Tokenizer(tokenizer, 30))
    kept = [i for i in range(6) if 3 * i + 2 <= 10]  # words of a row
    long = [json.dumps(rows[i]) for i in range(6) if i not in kept]
    again = stored("conversation", [json.loads(row) for row in long], tmp_path / "")
    want = row_sizes(Job(again, "s", "conversation", job.tokenizer), np.arange(len(long)), 1, quiet)
    assert store.rows == len(kept) and dropped_sizes(job, 1, quiet) == {
        "read": 0, "length": int(want.sum()),
    }  # fmt: skip


def test_no_rows_no_tokens(tokenizer: Any, tmp_path: Path) -> None:
    store = stored("conversation", [raw("conversation", 1)], tmp_path)
    job = Job(store, "s", "conversation", Tokenizer(tokenizer, 30))
    assert dropped_sizes(job, 1, quiet) == {} and not len(row_sizes(job, np.arange(0), 1, quiet))
