"""A training file against evaluation files: clean lines and a report."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.decontamination import files
from posttrain.decontamination.files import decontaminate_file
from posttrain.errors import DataError

PROMPT = "Which city is the capital of the country of France, and why?"
LINES = [
    b'{"messages": [{"role": "user", "content": "Hello there"}]}\n',
    b'{"prompt":   "which city is the capital of the country of France and why", "x": 1}\r\n',
    b"\n",
    '{"instruction": "Größe", "output": "é"}\n'.encode(),
    b'{"text": "Which city is the capital of the country of Spain, my friend?"}\n',
    b'{"question": "short one"}',
]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "train.jsonl").write_bytes(b"".join(LINES))
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": PROMPT}) + "\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "nothing like it"}\n{"prompt": "Short one."}\n')
    return {
        "train": tmp_path / "train.jsonl",
        "against": [tmp_path / "a.jsonl", tmp_path / "b.jsonl"],
        "out": tmp_path / "clean.jsonl",
        "report": tmp_path / "report.json",
    }


def test_clean_lines_are_the_bytes_that_came_in(paths: dict[str, Any], tmp_path: Path) -> None:
    seen: list[int] = []
    result = decontaminate_file(**paths, progress=seen.append)
    assert paths["out"].read_bytes() == LINES[0] + LINES[3]
    a, b = map(str, paths["against"])
    assert result["matches"] == [
        {"train_row": 1, "eval_file": a, "eval_row": 0, "overlap": 1.0},
        {"train_row": 3, "eval_file": a, "eval_row": 0, "overlap": 9 / 12},
        {"train_row": 4, "eval_file": b, "eval_row": 1, "overlap": 1.0},
    ]
    assert [one["prompt"] for one in result["marked"]] == [
        "⟦Which city is the capital of the country of France, and why⟧?",
        "⟦Which city is the capital of the country of⟧ France, and why?",
        "⟦Short one⟧.",
    ]
    assert (result["rows_read"], result["rows_kept"], result["rows_dropped"]) == (5, 2, 3)
    assert result["evals"][1] == {
        "eval_file": b,
        "eval_rows": 2,
        "matched_eval_rows": 1,
        "eval_share": 0.5,
        "matched_train_rows": 1,
        "train_share": 0.2,
        "contaminated": True,
        "too_short": 2,
    }
    assert json.loads(paths["report"].read_text(encoding="utf-8")) == result
    assert seen == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.jsonl", "b.jsonl", "clean.jsonl", "report.json", "train.jsonl"),
    ]


def test_options_reach_the_rule(paths: dict[str, Any]) -> None:
    assert [m["train_row"] for m in decontaminate_file(**paths, threshold=0.8)["matches"]] == [1, 4]
    assert [m["train_row"] for m in decontaminate_file(**paths, n=13)["matches"]] == [1, 4]
    exact = decontaminate_file(**paths, mode="exact")
    assert [m["train_row"] for m in exact["matches"]] == [1, 4]
    assert exact["marked"][0]["prompt"] == PROMPT
    close = decontaminate_file(**paths, mode="embedding", threshold=0.6)
    assert [m["train_row"] for m in close["matches"]] == [1, 3, 4]
    with pytest.raises(DataError, match=r"train\.jsonl:1: the row has no field 'x'"):
        decontaminate_file(**paths, fields=["x"])


def test_compressed_files(paths: dict[str, Any], tmp_path: Path) -> None:
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(paths["train"].read_bytes()))
    out = tmp_path / "clean.jsonl.gz"
    first = decontaminate_file(**{**paths, "train": packed, "out": out})
    assert gzip.decompress(out.read_bytes()) == LINES[0] + LINES[3]
    once = out.read_bytes()
    decontaminate_file(**{**paths, "train": packed, "out": out})
    assert out.read_bytes() == once
    assert first["matches"] == decontaminate_file(**paths)["matches"]


def test_workers_find_the_same(
    paths: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tmp_path / "many.jsonl"
    train.write_bytes((b"".join(LINES) + b"\n") * 40)
    monkeypatch.setattr(files, "CHUNK", 7)
    alone = decontaminate_file(**{**paths, "train": train}, workers=1)
    clean = paths["out"].read_bytes()
    assert decontaminate_file(**{**paths, "train": train}, workers=2) == alone
    assert paths["out"].read_bytes() == clean == (LINES[0] + LINES[3]) * 40
    assert (alone["rows_read"], alone["rows_dropped"], len(alone["matches"])) == (200, 120, 120)
    assert len(alone["marked"]) == 100
    with train.open("ab") as end:
        end.write(b"{broken\n")
    with pytest.raises(DataError, match=r"many\.jsonl:241 is not JSON"):
        decontaminate_file(**{**paths, "train": train}, workers=2)


def test_a_failure_leaves_what_was_there(paths: dict[str, Any], tmp_path: Path) -> None:
    paths["out"].write_text("old")
    before = sorted(tmp_path.iterdir())
    with paths["train"].open("ab") as end:
        end.write(b'\n{"id": 7}\n')
    with pytest.raises(DataError, match=r"train\.jsonl:7: no prompt found"):
        decontaminate_file(**paths)
    assert paths["out"].read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


def test_an_empty_training_file(paths: dict[str, Any]) -> None:
    paths["train"].write_text("\n")
    result = decontaminate_file(**paths)
    assert (result["rows_read"], result["rows_dropped"], result["matches"]) == (0, 0, [])
    assert [line["matched_eval_rows"] for line in result["evals"]] == [0, 0]
    assert paths["out"].read_bytes() == b""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": "train.jsonl"}, "is an input and would be lost"),
        ({"report": "a.jsonl"}, "is an input and would be lost"),
        ({"out": "report.json"}, "cannot be both the clean rows and the report"),
        ({"out": "no/clean.jsonl"}, "there is no folder"),
        ({"train": "none.jsonl"}, "does not exist"),
    ],
)
def test_paths(paths: dict[str, Any], tmp_path: Path, change: dict[str, str], says: str) -> None:
    before = paths["train"].read_bytes()
    with pytest.raises(DataError) as caught:
        decontaminate_file(**{**paths, **{key: tmp_path / name for key, name in change.items()}})
    assert says in str(caught.value)
    assert paths["train"].read_bytes() == before


def test_chunks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "0123456789"}\n' * 10)
    monkeypatch.setattr(files, "CHUNK", 4)
    assert [len(chunk) for chunk in files.chunks(path)] == [4, 4, 2]
    monkeypatch.setattr(files, "CHUNK_BYTES", 40)
    assert [len(chunk) for chunk in files.chunks(path)] == [2] * 5
