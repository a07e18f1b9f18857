"""Lines of progress: none for short work, one now and then for long."""

from __future__ import annotations

import pytest

from posttrain.pipeline import counting
from posttrain.pipeline.counting import Counting


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Counting("reading") as count:
        count("a", 10)
    assert capsys.readouterr().err == ""


def test_long_work_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_LINES", -1.0)
    with Counting("reading") as count:
        count("a", 1000)
        count("b", 500)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("reading: a: 1,000 rows, ") and "rows/s" in first
    assert second.startswith("reading: b: 1,500 rows, ")


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Counting("tokens") as count:
        count("a", 1000)
        assert count.bar is not None and count.bar.tasks[0].completed == 1000
