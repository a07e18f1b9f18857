"""Chunks over worker processes: the order, the errors, and what a dead worker says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError, MissingExtraError, RunError
from posttrain.parallel import ALONE, AT_LEAST, keep_workers, num_workers, ordered


def make_square(offset: int) -> Callable[[int], tuple[int, int]]:
    def square(n: int) -> tuple[int, int]:
        time.sleep(0.02 * (n % 3))  # later chunks are often done first
        return n * n + offset, os.getpid()

    return square


def make_faulty(setup: tuple[str, int]) -> Callable[[int], int]:
    kind, parent = setup

    def faulty(n: int) -> int:
        if os.getpid() == parent:
            time.sleep(0.1)  # so that workers have their turn
            return n
        if kind == "data":
            raise DataError("row 5 is bad")
        if kind == "extra":
            raise MissingExtraError("langdetect", "eval", "the language filter")
        if kind == "bug":
            raise KeyError("oops")
        os.kill(os.getpid(), signal.SIGKILL)
        return n

    return faulty


def make_alone(_: Any) -> Callable[[int], int]:
    def alone(n: int) -> int:
        raise DataError(f"row {n} is bad")

    return alone


def make_noisy(_: Any) -> Callable[[int], int]:
    def noisy(n: int) -> int:
        print("a library prints")  # noqa: T201
        return n

    return noisy


# the workers import this module by name
pytestmark = pytest.mark.usefixtures("importable")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for make in (make_square, make_faulty, make_alone, make_noisy):
        monkeypatch.setattr(make, "__module__", "test_parallel")
    monkeypatch.setitem(sys.modules, "test_parallel", sys.modules[__name__])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_answers_come_in_order(workers: int) -> None:
    answers = list(ordered(make_square, 7, range(40), workers))
    assert [value for value, _ in answers] == [n * n + 7 for n in range(40)]
    pids = {pid for _, pid in answers}
    assert os.getpid() in pids and (len(pids) == 1 if workers == 1 else 1 < len(pids) <= workers)


def workers_of(offset: int) -> set[int]:
    answers = list(ordered(make_square, offset, range(20), 2))
    assert [value for value, _ in answers] == [n * n + offset for n in range(20)]
    return {pid for _, pid in answers} - {os.getpid()}


def ended(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_are_kept_for_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_of(0) != workers_of(0)
    with keep_workers():
        with keep_workers():
            first = workers_of(1)
        assert workers_of(2) == first
        monkeypatch.setenv("POSTTRAIN_A_SETTING", "new")
        second = workers_of(3)
        assert second != first and ended(first)
    assert ended(second)


def test_a_worker_that_failed_is_not_kept() -> None:
    with keep_workers():
        [first] = workers_of(0)
        with pytest.raises(DataError, match=r"^row 5 is bad$"):
            faulty("data")
        [second] = workers_of(0)
        assert second != first
        os.kill(second, signal.SIGKILL)
        assert len(workers_of(0) - {second}) == 1


def test_small_work_starts_no_worker() -> None:
    answers = list(ordered(make_square, 0, range(ALONE), 4))
    assert {pid for _, pid in answers} == {os.getpid()}


def test_chunks_are_read_only_a_little_ahead() -> None:
    read = []

    def endless() -> Any:
        for n in count():
            read.append(n)
            yield n

    answers = ordered(make_square, 0, endless(), 2)
    for _ in range(10):
        next(answers)
    assert len(read) <= 10 + ALONE + AT_LEAST + 2
    answers.close()


def faulty(kind: str) -> list[int]:
    return list(ordered(make_faulty, (kind, os.getpid()), range(40), 2))


def test_a_users_mistake_is_told_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^row 5 is bad$"):
        faulty("data")
    with pytest.raises(DataError, match=r"^row 0 is bad$"):
        list(ordered(make_alone, None, range(3), 2))


def test_an_error_that_cannot_travel_keeps_its_words() -> None:
    with pytest.raises(DataError, match="pip install"):
        faulty("extra")


def test_a_bug_brings_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in faulty.*KeyError: 'oops'"):
        faulty("bug")


def test_a_dead_worker() -> None:
    with pytest.raises(RunError, match="POSTTRAIN_NUM_PROC"):
        faulty("dead")


def test_what_a_library_prints_is_no_answer() -> None:
    assert list(ordered(make_noisy, None, range(6), 2)) == list(range(6))


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('ran')\nfrom posttrain.mixture import build_mixture\n"
        "entry = {'path': 'generated:tiny_conversations', 'num_samples': 10000}\n"
        "print(len(build_mixture([entry], workers=2).rows))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ran", "10000"]


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTTRAIN_NUM_PROC", raising=False)
    assert num_workers() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("POSTTRAIN_NUM_PROC", "3")
    assert num_workers() == 3
    for bad in ("0", "-1", "two"):
        monkeypatch.setenv("POSTTRAIN_NUM_PROC", bad)
        with pytest.raises(RunError, match="POSTTRAIN_NUM_PROC must be"):
            num_workers()
