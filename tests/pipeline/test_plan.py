"""What a stage's data is known by: bytes where they are few, size and time where they are many."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from posttrain.pipeline import plan
from posttrain.pipeline.plan import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows/part").mkdir(parents=True)
    (tmp_path / "rows/a.jsonl").write_text("1\n")
    (tmp_path / "rows/part/b.jsonl").write_text("22\n")
    return tmp_path / "rows"


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"1\n")
    assert fingerprint(str(tmp_path / "rows.jsonl")) == hashlib.sha256(b"1\n").hexdigest()


def test_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert fingerprint("~/rows") == fingerprint(str(folder))
    assert fingerprint("~/rows/a.jsonl") == hashlib.sha256(b"1\n").hexdigest()


def test_what_is_not_here_has_none(tmp_path: Path) -> None:
    assert fingerprint("allenai/tulu-3-sft-mixture") is None
    assert fingerprint(str(tmp_path / "gone.jsonl")) is None


def test_a_folder_touched_or_copied_is_the_same(folder: Path) -> None:
    before = fingerprint(str(folder))
    os.utime(folder / "a.jsonl", (1, 1))
    (folder / ".cache").mkdir()
    (folder / ".cache/notes").write_text("of a download")
    assert fingerprint(str(folder)) == before
    copy = folder.rename(folder.with_name("moved"))
    assert fingerprint(str(copy)) == before


@pytest.mark.parametrize("spoilt", ["a.jsonl", "part/b.jsonl", "part/new.jsonl"])
def test_a_changed_file_in_a_folder(spoilt: str, folder: Path) -> None:
    before = fingerprint(str(folder))
    (folder / spoilt).write_text("3\n")
    assert fingerprint(str(folder)) != before


def test_a_renamed_or_removed_file_in_a_folder(folder: Path) -> None:
    marks = {fingerprint(str(folder))}
    (folder / "a.jsonl").rename(folder / "c.jsonl")
    marks.add(fingerprint(str(folder)))
    (folder / "c.jsonl").unlink()
    marks.add(fingerprint(str(folder)))
    assert len(marks) == 3


def test_large_files_in_a_folder_are_known_by_size_and_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "READ_IN_FULL", 1)
    os.utime(folder / "a.jsonl", (1, 1))
    before = fingerprint(str(folder))
    (folder / "a.jsonl").write_text("3\n")
    os.utime(folder / "a.jsonl", (1, 1))
    assert fingerprint(str(folder)) == before  # same size, same time
    os.utime(folder / "a.jsonl", (2, 2))
    assert fingerprint(str(folder)) != before
