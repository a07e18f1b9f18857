"""Tokens in stores: what the trainer reads is what the tokenizer made, in the order asked for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_from_disk

from posttrain.mixture import build_mixture
from posttrain.store import Store
from posttrain.tokens import Tokenizer
from posttrain.tokens.stores import COLUMNS, FACTS, Job, Tokens, order_tokens, save, token_store

WORDS = ["red", "green", "blue", "one", "two", "three"]


def say(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))


def raw(kind: str, number: int) -> list[dict[str, Any]]:
    rng = random.Random(number)
    makers = {
        "text": lambda: {"text": say(rng)},
        "conversation": lambda: {"prompt": say(rng), "completion": say(rng)},
        "preference": lambda: {"prompt": say(rng), "chosen": f"a {say(rng)}", "rejected": say(rng)},
        "problem": lambda: {"prompt": say(rng), "ground_truth": "7 ü", "verifier": "string_match"},
    }
    return [makers[kind]() for _ in range(number)]


def stored(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> Store:
    import json

    path = tmp_path / f"{kind}{len(rows)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return build_mixture([{"path": str(path)}], kind).parts[0].store


def quiet(rows: int) -> None:
    return None


@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_on_disk_are_what_the_tokenizer_makes(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    words = Tokenizer(tokenizer, 512)
    one, two = (stored(kind, raw(kind, number), tmp_path) for number in (7, 5))
    made = [
        token_store(Job(store, name, kind, words), np.arange(store.rows), 1, quiet)
        for store, name in ((one, "one"), (two, "two"))
    ]
    which, rows = np.array([1, 0, 0, 1, 0]), np.array([4, 6, 0, 4, 3])  # one row twice
    tokens = order_tokens(kind, made, ["one", "two"], which, rows)
    save(tokens, tmp_path / "data")
    data = load_from_disk(str(tmp_path / "data"))
    mixtures = [list(words.batch(kind, [_row(s, i) for i in range(s.rows)]).table.to_pylist())
                for s in (one, two)]  # fmt: skip
    for row, source, index in zip(data, which, rows, strict=True):
        expected = mixtures[source][index]
        assert row["source"] == ("one", "two")[source]
        assert {name: row[name] for name in COLUMNS[kind]} == {
            name: expected[name] for name in COLUMNS[kind]
        }
    assert tokens.facts(1)["rows"] == 2
    ids = [name for name in COLUMNS[kind] if name.endswith("_ids")]
    assert tokens.facts(0)["tokens"] == sum(
        len(row[name]) for row in data if row["source"] == "one" for name in ids
    )
    assert tokens.lengths(1).tolist() == [sum(len(data[0][name]) for name in ids)] * 2


def _row(store: Store, i: int) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(store.read("row", i))
    return found


def test_a_row_without_tokens_leaves_the_order(tokenizer: Any, tmp_path: Path) -> None:
    rows = [
        *raw("conversation", 3),
        {"prompt": "red " * 200, "completion": "no"},
        *raw("conversation", 2),
    ]
    store = stored("conversation", rows, tmp_path)
    words = Tokenizer(tokenizer, 128)
    made = token_store(Job(store, "s", "conversation", words), np.arange(6), 1, quiet)
    assert made.rows == 5 and made.chunks[0]["dropped"] == {
        "no trained token is left within max_length": 1
    }
    tokens = order_tokens("conversation", [made], ["s"], np.zeros(4, int), np.array([5, 3, 3, 0]))
    assert len(tokens) == 2 and tokens.index.tolist() == [4, 0]


def test_the_same_on_any_number_of_workers_and_from_the_cache(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored("conversation", raw("conversation", 6500), tmp_path)
    job = Job(store, "s", "conversation", Tokenizer(tokenizer, 40))
    made = []
    for workers in (1, 2, 8):
        monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / f"cache{workers}"))
        told: list[int] = []
        found = token_store(job, np.arange(store.rows), workers, told.append)
        assert sum(told) == 6500
        files = {p.name: p.read_bytes() for p in sorted(found.folder.iterdir())}
        made.append(files)
        again = token_store(job, np.arange(store.rows), workers, told.append)
        assert again.folder == found.folder and sum(told) == 6500
    assert made[0] == made[1] == made[2]


def test_facts_of_a_row_by_hand(tokenizer: Any, tmp_path: Path) -> None:
    store = stored("conversation", [{"prompt": "red", "completion": "blue"}], tmp_path)
    whole = Tokenizer(tokenizer, 512)
    [row] = whole.each("conversation", [_row(store, 0)])
    length, trained = len(row["input_ids"]), sum(label != -100 for label in row["labels"])
    for limit, expected in (
        (512, [length, trained, 0, 0, 0]),
        (length - 1, [length - 1, trained - 1, 1, 1, 1]),
    ):
        job = Job(store, "s", "conversation", Tokenizer(tokenizer, limit))
        made = token_store(job, np.arange(1), 1, quiet)
        assert made.column("facts").tolist() == expected and len(FACTS) == 5


def test_the_hash_is_that_of_the_rows(tokenizer: Any, tmp_path: Path) -> None:
    store = stored("conversation", raw("conversation", 4), tmp_path)
    made = token_store(
        Job(store, "s", "conversation", Tokenizer(tokenizer, 512)), np.arange(4), 1, quiet
    )

    def digest(order: list[int], name: str) -> str:
        which = np.zeros(len(order), np.uint16)
        return save(Tokens("conversation", [made], ["s"], which, np.array(order)), tmp_path / name)

    assert digest([0, 1, 2, 3], "a") == digest([0, 1, 2, 3], "b") != digest([1, 0, 2, 3], "c")
