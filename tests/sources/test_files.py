"""Local files of every known ending, and damaged ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from pyarrow import parquet

from posttrain.errors import DataError
from posttrain.recipe import Source
from posttrain.sources import open_source, source_name
from posttrain.sources.files import is_local, rename

ROWS = [{"question": "2+2?", "answer": "4"}, {"question": "Käse?", "answer": "ja\u2028doch"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)

WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_text(LINES, encoding="utf-8"),
    "bom.jsonl": lambda path: path.write_text(LINES, encoding="utf-8-sig"),
    "boms.jsonl": lambda path: path.write_text("\ufeff" + LINES.replace("\n", "\n\ufeff", 1)),
    "windows.jsonl": lambda path: path.write_bytes(LINES.replace("\n", "\r\n").encode()),
    "blank.jsonl": lambda path: path.write_text("\n" + LINES.replace("\n", "\n \n")),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "rows.csv": lambda path: Dataset.from_list(ROWS).to_csv(path),
    "rows.parquet": lambda path: Dataset.from_list(ROWS).to_parquet(path),
    "folder": lambda path: Dataset.from_list(ROWS).save_to_disk(path),
    "splits": lambda path: DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(path),
}


def rows_of(path: Path, **keys: str) -> list[dict[str, str]]:
    return [dict(row) for row in open_source(Source(path=str(path), **keys), 0).rows]


@pytest.mark.parametrize("name", WRITERS)
def test_every_ending(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert rows_of(tmp_path / name) == ROWS


def test_arrow(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    assert rows_of(arrow) == ROWS


def test_text_is_a_row_per_line(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n\n two \nthree")
    assert rows_of(tmp_path / "lines.txt") == [{"text": t} for t in ("one", " two ", "three")]


def test_files_inside_a_folder(tmp_path: Path) -> None:
    WRITERS["rows.jsonl"](tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"question": "no", "answer": "no"}\n')
    assert rows_of(tmp_path, data_files="a.jsonl") == ROWS


def test_a_split_of_a_saved_set(tmp_path: Path) -> None:
    parts = {"train": Dataset.from_list(ROWS[:1]), "dev": Dataset.from_list(ROWS[1:])}
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert rows_of(tmp_path / "saved", split="dev") == ROWS[1:]
    with pytest.raises(DataError, match=r"no split 'test'; set `split:` to one of train, dev"):
        rows_of(tmp_path / "saved", split="test")


def test_what_map_left_in_a_saved_set_is_no_part_of_it(tmp_path: Path) -> None:
    """`datasets` keeps what it computed beside the files that it computed it from."""
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    load_from_disk(str(tmp_path / "saved")).map(lambda row: {"more": 1})
    assert len(list((tmp_path / "saved").glob("*.arrow"))) == 3
    assert rows_of(tmp_path / "saved") == ROWS


def test_a_saved_set_that_lacks_a_file(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow cannot be read: No such file"):
        rows_of(tmp_path / "saved")


@pytest.mark.parametrize("name", ["dataset_dict.json", "state.json"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", r"cannot be read \(Expecting property name"),
        (b'"\xff"', r"cannot be read \('utf-8' codec"),
        (b"[]", "has no list `(splits|_data_files)`; save the data again"),
        (b'{"splits": null, "_data_files": "a"}', "has no list"),
    ],
)
def test_a_damaged_index_of_a_saved_set(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name} {says}"):
        rows_of(tmp_path)


def test_an_index_that_names_no_files(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"_data_files": [{}]}')
    with pytest.raises(DataError, match=r"state\.json does not name the files"):
        rows_of(tmp_path)


def test_a_link_to_a_file_that_is_gone_is_no_empty_file(tmp_path: Path) -> None:
    WRITERS["rows.jsonl"](tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"b\.jsonl cannot be read: No such file"):
        rows_of(tmp_path)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


TABLES: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": ("rows.parquet", lambda path, table: parquet.write_table(table, path)),
    "stream": ("rows.arrow", write_stream),
    "file": ("rows.arrow", write_file),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_hold_lists_and_have_each_column_once(kind: str, tmp_path: Path) -> None:
    name, write = TABLES[kind]
    rows = [{"messages": [{"role": "user", "content": "Hi"}], "tags": ["a", "b"]}] * 2
    table = pa.Table.from_pylist(rows)
    write(tmp_path / name, table)
    assert rows_of(tmp_path / name) == rows
    write(tmp_path / name, table.append_column("tags", pa.array([1, 2])))
    with pytest.raises(DataError, match=rf"{name} has 2 columns named 'tags'"):
        rows_of(tmp_path / name)


def test_columns_without_a_name_may_be_many(tmp_path: Path) -> None:
    """Spreadsheets write them at the end of every line."""
    (tmp_path / "rows.csv").write_text("a,,\n1,,\n")
    assert rows_of(tmp_path / "rows.csv") == [{"a": "1", "": ""}]


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    opened = open_source(Source(path=str(path)), 0)
    assert opened.revision is None
    # printf '{}\n' | sha256sum
    assert opened.sha256 == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    WRITERS["rows.jsonl"](tmp_path / "rows.jsonl")
    assert list(open_source(Source(path="~/rows.jsonl"), 0).rows) == ROWS


DAMAGED: dict[str, tuple[bytes, str]] = {
    "cut.jsonl": (b'{"a": 1}\n{"a": ', "cut.jsonl:2 is not JSON"),
    "list.jsonl": (b"[1]\n", "list.jsonl:1 must be an object, it is of type list"),
    "latin.jsonl": ('{"a": "K\u00e4se"}'.encode("latin-1"), "latin.jsonl:1 is not UTF-8 text"),
    "plain.jsonl.gz": (b'{"a": 1}\n', "plain.jsonl.gz is damaged or no gzip file"),
    "cut.jsonl.gz": (gzip.compress(LINES.encode())[:-12], "cut.jsonl.gz is damaged"),
    "bits.jsonl.gz": (gzip.compress(b"x" * 50)[:12] + b"\xff" * 9, "bits.jsonl.gz is damaged"),
    "number.json": (b"1", "must hold a list of rows, it holds a int"),
    "deep.jsonl": (b'{"a":' * 200_000, "deep.jsonl:1 is n"),
    "twice.jsonl": (b'{"a": 1}\n{"a": 1, "a": 2}\n', "twice.jsonl:2 has the key 'a' twice in one"),
    "inner.jsonl": (b'{"a": [{"b": 1, "b": 1}]}\n', "inner.jsonl:1 has the key 'b' twice in one"),
    "twice.json": (b'[{"a": 1, "a": 2}]', "twice.json has the key 'a' twice in one object; keep"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "twice.csv has 2 columns named 'a'; rename or remove one"),
    "cells.csv": (b"a,b\n1\n", "cells.csv: row 1 (line 2) has more or fewer values than the 2"),
    "latin.csv": ("a\nK\u00e4se".encode("latin-1"), "latin.csv is not UTF-8 text"),
    "blank.json": (b"\xef\xbb\xbf \n", "blank.json cannot be read: it is empty"),
    "wide.json": ('[{"a": "b"}]'.encode("utf-16"), "wide.json is not UTF-8 text"),
    "cut.json.gz": (gzip.compress(b"[]")[:-4], "cut.json.gz is damaged or no gzip file"),
    "lines.json": (b'{"a": 1}\n{"a": 2}\n', "one object per line is .jsonl"),
    "numbers.json": (b"[{}, 2]", "row 2 must be an object, it is of type int"),
    "rows.parquet": (b"PAR1 or so", "rows.parquet cannot be read"),
    "rows.arrow": (b"ARROW", "rows.arrow cannot be read"),
    "rows.csv": (b"", "rows.csv cannot be read"),
    "rows.xml": (b"<row/>", "unknown ending; known are .jsonl"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    data, says = DAMAGED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path / name)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.jsonl does not exist \(looked for /"):
        rows_of(tmp_path / "absent.jsonl")


def test_a_hub_set_without_network() -> None:
    with pytest.raises(DataError, match="nobody/nothing is no file here and could not be read"):
        open_source(Source(path="nobody/nothing"), 0)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("./rows", True),
        ("/data/rows", True),
        ("~/rows", True),
        ("data/rows.jsonl.gz", True),
        ("rows.parquet", True),
        ("allenai/tulu-3-sft-mixture", False),
    ],
)
def test_what_is_local(path: str, local: bool) -> None:
    assert is_local(path) is local


def test_rename_reads_the_raw_row() -> None:
    raw = {"a": 1, "b": 2}
    assert rename(raw, {"a": "b", "b": "a"}) == {"a": 2, "b": 1}
    assert raw == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Source(path="data/rows.jsonl.gz"), "rows"),
        (Source(path="allenai/tulu-3"), "tulu-3"),
        (Source(path="folder/"), "folder"),
        (Source(path="generated:tiny_text"), "tiny_text"),
        (Source(path="rows.csv", source="mine"), "mine"),
    ],
)
def test_names(source: Source, name: str) -> None:
    assert source_name(source) == name


def test_generators_must_be_known_and_bounded() -> None:
    with pytest.raises(DataError, match="did you mean 'tiny_text'"):
        open_source(Source(path="generated:tiny_txt", num_samples=1), 0)
    with pytest.raises(DataError, match="num_samples"):
        open_source(Source(path="generated:tiny_text"), 0)
