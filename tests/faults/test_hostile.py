"""Hostile completions: each ends within its limit, scores 0 and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posttrain.formats import Verdict
from posttrain.verifiers import compose, verify
from posttrain.verifiers.code import Code
from posttrain.verifiers.sandbox.host import Limits, protection

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
assert _spec is not None
assert _spec.loader is not None
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

LIMITS = Limits(cpu_seconds=1, wall_seconds=4.0, memory_mb=512, processes=16)
# Two seconds of CPU time at most, on a machine that others use too.
SECONDS = 60.0
QUICK = (
    "code: sys.exit(0)", "code: always equal int", "code: patches AssertionError",
    "code: searches the heap for tests", "code: prints a verdict", "code: fork bomb",
    "out: the parent's environment", "out: an inet socket", "out: deletes the canary",
    "text: boxed 10,000 deep", "text: 9**9**9**9", "text: nested pattern",
)  # fmt: skip
SECRET = "a-secret-of-the-host"


def left_behind() -> set[str]:
    """Processes of the jails' users, and the folders that jails are given."""
    found = {str(path) for path in Path("/tmp").glob("posttrain-jail-*")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid >= 1_000_000_000:
                found.add(pid)
    return found


def own_children() -> set[str]:
    """Processes of this one, the verifiers' own lasting ones aside."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        found |= set(Path(f"/proc/self/task/{task}/children").read_text().split())
    lasting = ("helper.py", "matcher.py")
    return {
        pid
        for pid in found
        if not any(name in Path(f"/proc/{pid}/cmdline").read_text() for name in lasting)
    }


@pytest.fixture
def graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Verdict]]:
    """Grades a kind of completion by its name, beside things to steal and to destroy."""
    monkeypatch.setenv("POSTTRAIN_TEST_SECRET", SECRET)
    (tmp_path / "treasure").mkdir(mode=0o777)
    canary = tmp_path / "treasure" / "canary"
    canary.write_text("alive")
    canary.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        cases = hostile.cases(str(canary), SECRET, server.getsockname()[1])
        before, children = left_behind(), own_children()

        def grade(name: str) -> Verdict:
            verifier, completion, truth = cases[name]
            start = time.monotonic()
            if verifier == "code":
                verdict = Code(LIMITS)(completion, truth)
            else:
                verdict = verify(verifier, completion, truth)
            assert time.monotonic() - start < SECONDS
            return verdict

        yield grade
    assert canary.read_text() == "alive"
    assert [path.name for path in canary.parent.iterdir()] == ["canary"]
    deadline = time.monotonic() + 5
    while (left_behind() - before or own_children() - children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_behind() - before == set()
    assert own_children() - children == set()
    for folder in ("/tmp", "/dev/shm", "/var/tmp"):
        assert not (Path(folder) / "hostile").exists()


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_completion_scores_0(name: str, graded: Callable[[str], Verdict]) -> None:
    verdict = graded(name)
    assert verdict.score == 0.0, verdict.reason
    assert verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in hostile.NAMES if name not in QUICK])
def test_every_hostile_completion_scores_0(name: str, graded: Callable[[str], Verdict]) -> None:
    verdict = graded(name)
    assert verdict.score == 0.0, verdict.reason
    assert verdict.reason


def test_there_are_about_200_kinds() -> None:
    assert len(hostile.NAMES) >= 200
    assert set(QUICK) <= set(hostile.NAMES)


def test_an_attack_that_works_would_be_seen() -> None:
    verifier, completion, truth = hostile.attempt("return True")
    assert verify(verifier, completion, truth).score == 1.0


def test_the_tests_accept_a_solution() -> None:
    solution = "```python\ndef f(x):\n    return x ** 2\n```"
    assert Code(LIMITS)(solution, hostile.TESTS).score == 1.0
    partial = compose({"name": "code", "partial": True})
    assert partial("def f(x):\n    return 4", hostile.TESTS).score == pytest.approx(1 / 3)


def test_root_has_every_protection() -> None:
    found = protection()
    assert set(found) == {"processes", "files", "network", "user", "calls"}
    if os.geteuid() == 0 and found["processes"] == "namespace":
        assert found == {
            "processes": "namespace",
            "files": "namespace",
            "network": "namespace",
            "user": "another",
            "calls": "refused",
        }
