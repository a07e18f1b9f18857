"""`posttrain data dedup`: rows of any shape, copied byte for byte or left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from posttrain.errors import DataError
from posttrain.pipeline.dedup import dedup_rows

STORY = "once upon a time there was a small town by the sea where nobody ever slept before nine"
LINES = [
    json.dumps({"frage": STORY, "id": 1}),
    '{"frage":   "something else entirely, in words that no other row has", "id": 2}',
    json.dumps({"frage": STORY + " o'clock", "id": 3}),
    json.dumps({"frage": STORY, "id": 4}),
]


@pytest.mark.parametrize(("mode", "kept"), [("near", [0, 1]), ("exact", [0, 1, 2])])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_one_row_of_each_group_stays(tmp_path: Path, mode: str, kept: list[int], name: str) -> None:
    file, out, report = tmp_path / "in.jsonl", tmp_path / name, tmp_path / "report.json"
    file.write_text("\n".join([LINES[0], "", *LINES[1:]]))
    assert dedup_rows(file, out, mode=mode, threshold=0.7, report=report) == (4, len(kept))
    data = gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()
    assert data.decode() == "".join(LINES[i] + "\n" for i in kept)
    groups = json.loads(report.read_text())["groups"]
    assert groups == ([[0, 2, 3]] if mode == "near" else [[0, 3]])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "nearly"}, "--mode must be one of near, exact"),
        ({"threshold": 0.0}, "--threshold must be above 0"),
        ({"out": "in.jsonl"}, "must be a file of its own"),
        ({"file": "absent.jsonl"}, "does not exist"),
        ({"file": "bad.jsonl"}, "bad.jsonl:2 is not JSON"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, object], says: str) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(LINES))
    (tmp_path / "bad.jsonl").write_text(LINES[0] + "\n{\n")
    file, out = (tmp_path / str(options.pop(k, v)) for k, v in (("file", "in.jsonl"), ("out", "o")))
    with pytest.raises(DataError, match=says):
        dedup_rows(file, out, **{"mode": "near", "threshold": 0.7, **options})  # type: ignore[arg-type]
    assert (tmp_path / "in.jsonl").read_text() == "\n".join(LINES)
    assert not (tmp_path / "o").exists()
