"""Stores: what is written is read, an interrupted build goes on, one key is built once."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import RunError
from posttrain.store import Store, Writer, cache_root, cached, gather, key_of, texts

COLUMNS = {"word": "uint8", "ids": "int32"}


def chunk(words: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Words, and beside each its characters' numbers."""
    ids = np.array([ord(c) for word in words for c in word], np.int32)
    return {"word": texts(words), "ids": (ids, np.array([len(w) for w in words], np.int64))}


def build(*chunks: list[str]):
    """A builder that skips what is there."""

    def run(writer: Writer) -> None:
        for words in chunks[len(writer.chunks) :]:
            writer.append(chunk(words), {"first": words[0] if words else None})

    return run


@given(st.lists(st.lists(st.text("aé\U0001f600", max_size=4), max_size=5), max_size=5))
def test_rows_come_back(parts: list[list[str]]) -> None:
    store = cached(None, COLUMNS, build(*parts))
    words = [word for part in parts for word in part]
    assert store.rows == len(words)
    assert [store.read("word", i).decode() for i in range(store.rows)] == words
    assert store.lengths("ids").tolist() == [len(word) for word in words]
    assert [note["rows"] for note in store.chunks] == [len(part) for part in parts]


def test_gather_reads_rows_of_several_stores_in_the_order_asked_for() -> None:
    one, two = cached(None, COLUMNS, build(["a", "", "bcd"])), cached(None, COLUMNS, build(["xy"]))
    which, rows = np.array([0, 1, 0, 0]), np.array([2, 0, 1, 0])
    values, lengths = gather([one, two], which, rows, "word")
    assert values.tobytes() == b"bcdxya" and lengths.tolist() == [3, 2, 0, 1]
    values, lengths = gather([one, two], which, rows, "ids")
    assert values.tolist() == [ord(c) for c in "bcdxya"] and values.dtype == np.int32


def test_a_row_that_is_not_there() -> None:
    store = cached(None, COLUMNS, build(["a"]))
    for row in (-1, 1):
        with pytest.raises(IndexError):
            store.read("word", row)


def test_a_key_is_built_once(tmp_path: Path) -> None:
    calls = []

    def run(writer: Writer) -> None:
        calls.append(1)
        build(["a", "b"])(writer)

    first, second = (cached("k" * 64, COLUMNS, run, tmp_path) for _ in range(2))
    assert calls == [1] and first.folder == second.folder and second.rows == 2
    assert second.key == "k" * 64
    assert [p.name for p in tmp_path.glob("*/*.partial")] == []


def test_an_interrupted_build_goes_on_after_the_last_whole_chunk(tmp_path: Path) -> None:
    def stops(writer: Writer) -> None:
        writer.append(chunk(["a", "b"]), {})
        writer.append(chunk(["c"]), {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("key", COLUMNS, stops, tmp_path)
    aside = tmp_path / "ke" / "key.partial"
    # what a kill in the middle of a write leaves behind: half a chunk, half a line
    with (aside / "word.bin").open("ab") as file:
        file.write(b"garbage")
    with (aside / "chunks.jsonl").open("a") as file:
        file.write('{"rows": 9, "siz')
    seen = []

    def rest(writer: Writer) -> None:
        seen.append(len(writer.chunks))
        writer.append(chunk(["d"]), {})

    store = cached("key", COLUMNS, rest, tmp_path)
    assert seen == [2]
    assert [store.read("word", i) for i in range(4)] == [b"a", b"b", b"c", b"d"]


def test_a_second_process_waits_and_finds_what_the_first_built(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from posttrain.store import cached, texts\n"
        "def run(writer):\n"
        "    print('built', flush=True); time.sleep(0.5)\n"
        "    writer.append({'w': texts(['x'])}, {})\n"
        "print(cached('key', {'w': 'uint8'}, run, Path(sys.argv[1])).read('w', 0))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("built" in text for text in said) == 1
    assert all("b'x'" in text for text in said)


def test_a_store_goes_to_a_worker_and_back() -> None:
    store = cached(None, COLUMNS, build(["abc"]))
    store.read("word", 0)  # opens a file, which must not travel
    assert isinstance(copy := pickle.loads(pickle.dumps(store)), Store)
    assert copy.read("word", 0) == b"abc"


def test_a_store_without_a_key_goes_with_its_object() -> None:
    store = cached(None, COLUMNS, build(["abc"]))
    folder = store.folder
    assert folder.is_dir() and store.key is None
    del store
    assert not folder.exists()


def test_a_failed_build_without_a_key_leaves_nothing(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails(writer: Writer) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        cached(None, COLUMNS, fails)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="POSTTRAIN_CACHE"):
        cached("key", COLUMNS, build(["a"]), tmp_path / "file")


def test_where_the_cache_is(monkeypatch) -> None:
    monkeypatch.delenv("POSTTRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/posttrain")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_root() == Path("/home/me/.cache/posttrain")
    monkeypatch.setenv("POSTTRAIN_CACHE", "/elsewhere")
    assert cache_root() == Path("/elsewhere")


def test_keys_differ_with_any_part() -> None:
    keys = {key_of(a=1), key_of(a=2), key_of(b=1), key_of(a=1, b=1), key_of(a="1")}
    assert len(keys) == 5 and key_of(a=1, b=2) == key_of(b=2, a=1)


def test_reading_maps_nothing_into_memory() -> None:
    """Rows are read with pread: 40 MB of them leave no trace in this process."""
    store = cached(
        None,
        {"word": "uint8"},
        lambda w: [w.append({"word": texts(["x" * 1_000_000])}, {}) for _ in range(40)] and None,
    )
    for row in range(40):
        store.read("word", row)
    maps = Path(f"/proc/{os.getpid()}/maps").read_text()
    assert str(store.folder) not in maps
