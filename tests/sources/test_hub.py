"""Data sets of a hub: the commit that was asked for is the one that is read, hub or no hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
OLD, NEW, OTHER = ("a" * 40, "b" * 40, "c" * 40)
READ = """
import json, sys, warnings
from posttrain.errors import DataError
from posttrain.recipe import Source
from posttrain.sources import open_source

found = []
for source in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            opened = open_source(Source(**{"path": "lab/rows", **source}), 0)
            rows = [row for chunk in opened.chunks() for _, row in chunk.parse()]
        except DataError as error:
            found.append({"error": str(error)})
            continue
    found.append({
        "revision": opened.revision, "license": opened.license, "pin": opened.pin,
        "rows": len(rows), "first": rows[0]["prompt"], "last": rows[-1]["prompt"],
        "said": [str(w.message) for w in said if "hub" in str(w.message)],
    })
print(json.dumps(found))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    command = [sys.executable, str(HERE / "hub.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@pytest.fixture(scope="module")
def home(port: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine that has read the data set at both commits, the old one last."""
    folder = tmp_path_factory.mktemp("home")
    found = read(folder, port, [{}, {"revision": OLD}])
    assert [one["rows"] for one in found] == [2500, 30]
    return folder


def read(home: Path, port: str | None, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a fresh process makes of some sources; without a port it is offline."""
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0" if port else "1"}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{port or 9}"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(sources)],
        env=env, capture_output=True, text=True, check=False, cwd=HERE.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_every_way_of_asking(port: str, tmp_path: Path) -> None:
    whole, test, old, streamed, named = read(
        tmp_path,
        port,
        [
            {}, {"split": "test"}, {"revision": OLD}, {"streaming": True},
            {"data_files": "data/test.jsonl"},
        ],
    )  # fmt: skip
    assert whole == {
        "revision": NEW, "license": "odc-by", "pin": NEW, "rows": 2500, "said": [],
        "first": "new question 0", "last": "new question 2499",
    }  # fmt: skip
    assert streamed == whole
    assert (old["revision"], old["rows"], old["first"]) == (OLD, 30, "old question 0")
    for one in (test, named):
        assert (one["revision"], one["rows"], one["last"]) == (NEW, 3, "held question 2")


def test_offline_the_pinned_commit_is_read(home: Path) -> None:
    """`datasets` itself would read the one that was used last, whatever was asked for."""
    new, old, other = read(home, None, [{"revision": NEW}, {"revision": OLD}, {"revision": OTHER}])
    assert (new["revision"], new["rows"], new["said"]) == (NEW, 2500, [])
    assert (old["revision"], old["rows"]) == (OLD, 30)
    assert OTHER in other["error"] and "connect to the hub once" in other["error"]


def test_offline_and_not_pinned_says_what_is_read(home: Path) -> None:
    [found] = read(home, None, [{}])
    assert found["revision"] in (OLD, NEW) and found["pin"] == found["revision"]
    assert found["rows"] == {OLD: 30, NEW: 2500}[found["revision"]]
    assert found["revision"] in found["said"][0] and "pin it" in found["said"][0]


def test_what_is_not_there(port: str, tmp_path: Path) -> None:
    found = read(tmp_path, port, [{"path": "lab/none"}, {"revision": "nope"}, {"split": "dev"}])
    says = ("doesn't exist", "Revision 'nope' doesn't exist", 'Unknown split "dev"')
    for one, words in zip(found, says, strict=True):
        assert words in one["error"] and "could not be read from the hub" in one["error"]
