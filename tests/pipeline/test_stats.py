"""Tables on a terminal: the numbers, 80 columns, odd names, and terminals without Unicode."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from posttrain.pipeline.stats import sparkline, tables


def manifest(name: str = "chat") -> dict[str, Any]:
    steps = [("read", 1010, 1008), ("exact_duplicates", 1008, 8), ("draw", 8, 24)]
    marks = {"mean": 37.5, "min": 10, "p25": 12, "p50": 34, "p75": 40, "p95": 47, "max": 49}
    chat = {
        "source": name, "path": "org/chat", "rows_read": 1010, "rows_taken": 24,
        "rows_tokenized": 24, "tokens": 90000, "trained_tokens": 30000, "truncated": 7,
        "dropped": {"the messages are empty": 2, "an exact duplicate": 1000},
        "flagged": {"an e-mail": 5}, "repairs": {},
        "steps": [{"step": s, "rows_before": a, "rows_after": b} for s, a, b in steps],
        "lengths": {**marks, "edges": [10.0, 20.0, 30.0, 40.0, 50.0], "counts": [16, 0, 1, 7]},
    }  # fmt: skip
    plain = {"source": "maths", "rows_taken": 3, "tokens": 10000, "trained_tokens": 10000}
    held = {"eval_rows": 12, "eval_share": 0.12, "train_rows": 17, "train_share": 0.0168}
    none = dict.fromkeys(held, 0)
    rates = [
        {"source": name, "eval_set": "gsm8k", **held, "contaminated": True},
        {"source": name, "eval_set": "mmlu", **none, "contaminated": False},
    ]
    return {"sources": [chat, plain], "contamination": rates}


def printed(found: dict[str, Any], width: int = 80) -> list[str]:
    """The lines, without the spaces that line columns up."""
    file = io.StringIO()
    tables(found, Console(file=file, width=width, highlight=False))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [" ".join(line.split()) for line in lines]


def test_the_numbers_are_printed() -> None:
    lines = printed({"sft": manifest(), "dpo": {"sources": []}})
    for line in (
        "sft: 2 sources, 27 rows, 100,000 tokens, 40.0% of them trained",
        "sft: contaminated, and not cleaned: chat: 12 rows of gsm8k (12.0%) in 17 of its",
        "sft: 29.2% of the rows of chat are truncated.",
        "Source Rows Dropped Tokens Share Trained Truncated",
        "chat 24 1,002 90,000 90.0% 33.3% 7",
        "maths 3 0 10,000 10.0% 100.0% —",
        "chat 38 10 34 47 49 █████ ▁▁▁▁▁▂▄▄▄▄▄",
        "chat read 1,010 1,008 −2",  # noqa: RUF001
        "exact_duplicates 1,008 8 −1,000",  # noqa: RUF001
        "draw 8 24 +16",
        "an exact duplicate chat 1,000",
        "the messages are empty chat 2",
        "an e-mail chat 5",
        "chat gsm8k 12 12.0% 17 1.7%",
        "1 of 2 pairs of source and evaluation set share nothing.",
        "dpo: 0 sources, 0 rows",
        "Its manifest names no source.",
    ):
        assert line in lines
    assert not any("mmlu" in line for line in lines)


def test_stdout_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    tables({"sft": manifest()})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "90,000" in out


def test_many_long_names_fit_80_columns() -> None:
    found = manifest()
    entries = [
        found["sources"][0] | {"source": f"an-organisation/a-long-name-of-a-source-{i}" * 2}
        for i in range(20)
    ]
    found["sources"] = [entry | {"tokens": 10**10, "rows_tokenized": 10**7} for entry in entries]
    lines = printed({"sft": found})
    assert sum("10,000,000,000" in line for line in lines) == 20
    assert any("200,000,000,000" in line for line in lines)  # nothing is cut off


def test_names_are_neither_markup_nor_commands_to_the_terminal() -> None:
    text = "\n".join(printed({"[red]sft[/red]": manifest("[bold]a[/bold]\n\x1b[31mb\ud800[/x]")}))
    assert "[red]sft[/red]: 2 sources" in text
    assert "[bold]a[/bold] ␛[31mb?[/x]" in text
    assert "\x1b" not in text


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tables({"sft": manifest("chät")}, Console(file=file, width=80, highlight=False))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "ch?t" in text
    assert "-1,000" in text
    assert "min to max" not in text


@pytest.mark.parametrize("found", [None, [], {}, {"sources": [{}]}, {"sources": [{"steps": 3}]}])
def test_missing_fields_are_survived(found: Any) -> None:
    lines = printed({"sft": found})
    assert lines[1].startswith("sft: ")


def test_a_sparkline_is_as_tall_as_the_rows_of_a_length() -> None:
    even = {"edges": [0.0, 10.0, 20.0, 30.0, 39.0], "counts": [8, 4, 0, 1]}
    assert sparkline(even) == "█" * 5 + "▄" * 5 + " " * 5 + "▁" * 5
    assert sparkline({"edges": [4.0, 4.5, 5.0], "counts": [2, 4]}) == "▄█"
    assert sparkline({}) == ""
