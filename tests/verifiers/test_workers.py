"""Verifiers in processes of their own: the pool and the check of gold answers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers.workers.gold import check_gold
from posttrain.verifiers.workers.pool import Pool, descendants


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of odd reward functions, importable by the workers."""
    (tmp_path / "odd_rewards.py").write_text(
        textwrap.dedent("""
            import ctypes, os, subprocess, sys, time

            def hang(completion):
                subprocess.Popen(["sleep", "1000"], start_new_session=True)
                while True:
                    pass

            def crash(completion):
                os._exit(3)

            def segfault(completion):
                ctypes.string_at(0)

            def noisy(completion):
                print("[1, 2]\\n" * 1000)
                return 1

            def fails(completion):
                raise ZeroDivisionError("by zero")

            def torch_is_there(completion):
                return float("torch" in sys.modules)
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(workers=1, seconds=20.0) as made:
        yield made


def test_verdicts_come_in_order(pool: Pool) -> None:
    handles = [pool.submit("gsm8k", f"it is {n}", str(n % 2)) for n in range(20)]
    assert [v.score for v in pool.gather(handles)] == [1.0, 1.0] + [0.0] * 18
    assert pool.counts == {"done": 20}


def test_an_item_that_hangs_is_killed_with_its_children_and_counted(odd: None) -> None:
    with Pool(workers=1, seconds=3.0) as pool:
        hanging = pool.submit({"function": "odd_rewards:hang"}, "x", None)
        after = pool.submit("gsm8k", "5", "5")
        verdict = hanging.result()
        assert (verdict.score, verdict.fault) == (0.0, "timeout")
        assert verdict.reason == "no verdict after 3 seconds; the worker was killed"
        assert after.result().score == 1.0
        assert pool.counts == {"done": 2, "timeout": 1, "timeout/function": 1}
        below = [Path(f"/proc/{p}/cmdline").read_bytes() for p in descendants(os.getpid())]
        assert not any(b"1000" in line for line in below)


@pytest.mark.parametrize("function", ["crash", "segfault"])
def test_a_crash_is_counted_and_the_worker_replaced(odd: None, pool: Pool, function: str) -> None:
    verdict = pool.submit({"function": f"odd_rewards:{function}"}, "x", None).result()
    assert (verdict.score, verdict.fault) == (0.0, "crash")
    assert pool.submit("gsm8k", "5", "5").result().score == 1.0
    assert pool.counts["crash"] == pool.counts["crash/function"] == 1


def test_what_a_verifier_prints_is_no_verdict(odd: None, pool: Pool) -> None:
    assert pool.submit({"function": "odd_rewards:noisy"}, "x", None).result().score == 1.0
    verdict = pool.submit({"function": "odd_rewards:fails"}, "x", None).result()
    assert verdict.reason == "failed on the completion: ZeroDivisionError: by zero"


def test_workers_start_without_torch(odd: None, pool: Pool) -> None:
    assert pool.submit({"function": "odd_rewards:torch_is_there"}, "x", None).result().score == 0.0


def test_a_row_that_cannot_be_graded_is_an_error(pool: Pool) -> None:
    with pytest.raises(VerifierError, match="gsm8k needs"):
        pool.submit("gsm8k", "5", "no number").result()
    with pytest.raises(VerifierError, match="did you mean 'math'"):
        pool.submit("mth", "5", "5").result()
    assert pool.submit("math", 5, "5").result().reason == "the completion is not text but int"


def test_functions_of_this_process_stay_in_it(pool: Pool) -> None:
    def here(completion: str) -> float | None:
        return None if completion == "skip" else float(os.getpid() == mine)

    mine = os.getpid()
    items: list[Any] = [(here, "x", None, {}), (here, "skip", None, {})]
    verdicts = pool.map(items)
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    assert pool.counts["not_applicable"] == 1


def test_rewards_are_computed_while_the_caller_goes_on(pool: Pool) -> None:
    pool.submit("gsm8k", "5", "5").result()
    start = time.perf_counter()
    handle = pool.submit({"function": "time:sleep"}, 1, None)
    assert time.perf_counter() - start < 0.5
    assert not handle.done()
    assert handle.result().applies is False


def test_closing_cancels_what_waits() -> None:
    pool = Pool(workers=1, seconds=20.0)
    first = pool.submit({"function": "time:sleep"}, 1, None)
    time.sleep(0.2)
    waiting = [pool.submit("gsm8k", "5", "5") for _ in range(5)]
    pool.close()
    assert first.done()
    assert all(handle.done() for handle in waiting)


def test_a_pool_needs_workers_and_time() -> None:
    for workers, seconds in ((0, 1.0), (1, 0.0)):
        with pytest.raises(VerifierError, match="a pool needs"):
            Pool(workers, seconds)


GOOD: list[dict[str, Any]] = [
    {"verifier": "gsm8k", "ground_truth": "48 + 24 = 72\n#### 72"},
    {"verifier": "math", "ground_truth": r"\frac{1}{2}"},
    {"verifier": "math", "ground_truth": r"so it is $\boxed{x^2}$"},
    {"verifier": "string_match", "ground_truth": ["Paris", "paris, France"]},
    {"verifier": "multiple_choice", "ground_truth": 2, "choices": ["a", "b", "c"]},
    {"verifier": "regex", "ground_truth": "[0-9]+"},
    {"verifier": "ifeval", "ground_truth": {"instruction_id_list": ["punctuation:no_comma"]}},
    {
        "verifier": "code",
        "ground_truth": ["assert f(1) == 2"],
        "solution": "def f(x): return 2 * x",
    },
]
BAD: list[dict[str, Any]] = [
    {"verifier": "code", "ground_truth": ["assert f(1) == 3"], "solution": "def f(x): return 2"},
    {"verifier": "math", "ground_truth": "7", "solution": "The last line is $8$", "source": "s"},
    {"verifier": "gsm8k", "ground_truth": "none"},
]


def test_gold_answers(pool: Pool) -> None:
    report = check_gold(GOOD, pool)
    assert (report.checked, report.no_gold, report.share) == (6, 2, 0.0)
    assert str(report) == "gold answers: 6 of 8 rows tried, all score 1"
    report = check_gold(GOOD + BAD, pool)
    assert [f.row for f in report.failed] == [8, 9, 10]
    assert report.share == pytest.approx(3 / 11)
    assert "row 9 (s, math): its gold answer scores 0" in str(report)
    assert "row 10 (no source, gsm8k): gsm8k needs" in str(report)


def test_an_empty_answer_that_passes_is_reported(odd: None, pool: Pool) -> None:
    row = {"verifier": "ifeval_old", "ground_truth": {"func_name": "validate_no_commas"}}
    assert check_gold([row], pool).failed == []
    lenient = {"verifier": "ifeval_old_release", "ground_truth": {"func_name": "validate_title"}}
    assert check_gold([lenient], pool).failed == []


def test_the_worker_is_a_script_that_needs_no_install(tmp_path: Path) -> None:
    worker = Path(sys.modules[Pool.__module__].__file__ or "").with_name("worker.py")
    done = subprocess.run(
        [sys.executable, "-P", str(worker), str(worker.parents[3])],
        input='["gsm8k", "5", "5", {}]\n',
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[0] == "ready"
    assert '"score": 1.0' in done.stdout.splitlines()[1]
