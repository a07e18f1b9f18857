"""Files line by line, damaged ones included."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from posttrain.decontamination.lines import open_lines, parse
from posttrain.errors import DataError


def test_lines_keep_their_bytes(tmp_path: Path) -> None:
    data = b'{"a": 1}\r\n\n{"a":  2}'
    for path, content in ((tmp_path / "a.jsonl", data), (tmp_path / "b.jsonl.gz", None)):
        path.write_bytes(content or gzip.compress(data))
        assert list(open_lines(path)) == [
            (f"{path}:1", b'{"a": 1}\r\n'),
            (f"{path}:2", b"\n"),
            (f"{path}:3", b'{"a":  2}'),
        ]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a": 1}\n' * 10_000)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "folder.jsonl").mkdir()
    for name, says in (
        ("cut.jsonl.gz", "cannot be read beyond line "),
        ("no.jsonl.gz", "cannot be read beyond line 0 (Not a gzipped file"),
        ("folder.jsonl", "Is a directory"),
        ("none.jsonl", "does not exist"),
        ("rows.csv", "must be a .jsonl or .jsonl.gz file"),
    ):
        with pytest.raises(DataError) as caught:
            list(open_lines(tmp_path / name))
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "f:1 is not JSON"),
        (b'{"a": "\xff"}', "f:1 is not JSON"),
        (b"[" * 100_000, "f:1 is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "f:1 has the key 'a' twice in one object"),
        (b"3", "f:1 must be an object, it is of type int"),
    ],
)
def test_bad_lines(line: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        parse("f:1", line)
    assert says in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_row() -> None:
    assert parse("f:1", b'\xef\xbb\xbf{"a": 1}\n') == {"a": 1}
