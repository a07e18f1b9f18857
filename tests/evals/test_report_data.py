"""Manifests on a page: the numbers are there, bars are as tall as their rows, names stay text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import RunError
from posttrain.evals.report import write_report
from posttrain.evals.report.data import Source, percent, step_table, view, write_data_report
from posttrain.evals.report.lengths import Bin, bins_of, histogram, strips

HOSTILE = (
    "</title></svg><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b\ud800"
)
SHOWN = "</title></svg><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}␛?"
VOID = {"meta", "link"}


class Page(HTMLParser):
    """Reads a page, insists that tags close in order, and keeps tables, texts and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.lines: list[list[str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self.lines[-1][-1] = f"{self.lines[-1][-1]} {data.strip()}".strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [a for name, a in self.tags if name == tag and css_class in (a.get("class") or "")]


def steps(*rows: int) -> list[dict[str, Any]]:
    names = ("read", "exact_duplicates", "draw", "tokens")
    pairs = zip(names, rows, rows[1:], strict=False)
    return [{"step": name, "rows_before": a, "rows_after": b} for name, a, b in pairs]


def lengths(values: list[int], bins: int) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=bins)
    marks = {"min": 0, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}
    return {
        "mean": round(float(np.mean(values)), 1),
        **{name: round(np.percentile(values, p)) for name, p in marks.items()},
        "edges": [round(float(edge), 1) for edge in edges],
        "counts": counts.tolist(),
    }


def manifest() -> dict[str, Any]:
    """Two sources. chat: 4 rows of 10, 10, 30, 50 tokens, 100 in all; maths: 2000 rows."""
    chat = {
        "source": "chat", "path": "org/chat", "license": "odc-by", "rows_read": 1010,
        "rows_kept": 8, "rows_held_out": 0, "rows_taken": 4, "rows_tokenized": 4, "tokens": 100,
        "trained_tokens": 25, "truncated": 1, "without_eos": 0, "flagged": {"an e-mail": 2},
        "dropped": {"the messages are empty": 2, "an exact duplicate": 1000}, "repairs": {},
        "steps": steps(1010, 1008, 8, 4, 4), "lengths": lengths([10, 10, 30, 50], 4),
    }  # fmt: skip
    maths = {
        "source": "maths", "path": "maths", "license": None, "rows_read": 1000, "rows_kept": 999,
        "rows_held_out": 30, "rows_taken": 2000, "rows_tokenized": 2000, "tokens": 300,
        "trained_tokens": 175, "truncated": 0, "without_eos": 0, "flagged": {}, "repairs": {},
        "dropped": {"an exact duplicate": 1}, "steps": steps(1000, 1000, 999, 2000, 2000),
        "lengths": lengths([7] * 2000, 40),
    }  # fmt: skip
    rates = [
        ("chat", "gsm8k", 12, 0.12, 17, 0.0168, True),
        ("chat", "mmlu", 0, 0.0, 0, 0.0, False),
        ("maths", "gsm8k", 1, 0.0002, 1, 0.001, False),
        ("maths", "mmlu", 0, 0.0, 0, 0.0, False),
    ]
    keys = (
        "source", "eval_set", "eval_rows", "eval_share", "train_rows", "train_share",
        "contaminated",
    )  # fmt: skip
    contamination = [dict(zip(keys, rate, strict=True)) for rate in rates]
    return {
        "rows": 2004, "held_out": 30, "sources": [chat, maths], "contamination": contamination,
        "decontaminate": {"mode": "ngram", "n": 8, "threshold": 0.5, "action": "report"},
    }  # fmt: skip


def rendered(tmp_path: Path, found: dict[str, Any]) -> Page:
    path = write_data_report(found, tmp_path / "page.html")
    return Page(path.read_text(encoding="utf-8"))


def test_every_number_is_on_the_page(tmp_path: Path) -> None:
    page = rendered(tmp_path, {"sft": manifest(), "dpo": manifest()})
    assert "sft: 2 sources, 2,004 rows, 400 tokens, 50.0% of them trained." in page.text
    assert page.lines[:4] == [
        ["Source", "Rows read", "Taken", "Dropped", "Tokens", "Trained", "Share of trained",
         "Share of tokens", "Trained part", "Truncated", "Held out"],
        ["chat org/chat, odc-by", "1,010", "4", "1,002", "100", "25", "12.5%",
         "25.0%", "25.0%", "1 (25.0%)", "0"],
        ["maths", "1,000", "2,000", "1", "300", "175", "87.5%", "75.0%", "58.3%", "0", "30"],
        ["all", "2,010", "2,004", "1,003", "400", "200", "", "100.0%", "50.0%",
         "1 (<0.1%)", "30"],
    ]  # fmt: skip
    assert [tag for tag, _ in page.tags].count("table") == 2 * 5


def test_rows_are_followed_through_the_steps_and_reasons_are_counted(tmp_path: Path) -> None:
    lines = rendered(tmp_path, {"sft": manifest()}).lines
    assert lines[4:7] == [
        ["Source", "read", "exact_duplicates", "draw", "tokens"],
        ["chat", "−2 1,008", "−1,000 8", "−4 4", "4"],  # noqa: RUF001
        ["maths", "1,000", "−1 999", "+1,001 2,000", "2,000"],  # noqa: RUF001
    ]
    assert lines[7:10] == [
        ["Reason", "Rows", "Sources"],
        ["an exact duplicate", "1,001", "chat 1,000 , maths 1"],
        ["the messages are empty", "2", "chat"],
    ]
    assert lines[11] == ["an e-mail", "2", "chat"]


def test_contamination_is_a_matrix_that_stresses_what_is_not_zero(tmp_path: Path) -> None:
    page = rendered(tmp_path, {"sft": manifest()})
    assert page.lines[12:] == [
        ["Source", "gsm8k", "mmlu"],
        ["chat", "12.0% ✗ 17 rows", "0"],
        ["maths", "<0.1% 1 rows", "0"],
    ]
    assert len(page.all("td", " bad")) == 1
    titles = [attrs["title"] for attrs in page.all("span") if "title" in attrs]
    said = "chat: 12 rows of gsm8k (12.0%) in 17 of its rows (1.7%)"
    assert titles[-2:] == [said, "maths: 1 rows of gsm8k (<0.1%) in 1 of its rows (0.1%)"]
    assert f"Before you read sft: contaminated, and not cleaned: {said}." in page.text
    assert "Mode ngram, n-grams of 8 words, threshold 50.0%, action report." in page.text


def test_bars_are_as_tall_as_their_rows(tmp_path: Path) -> None:
    page = rendered(tmp_path, {"sft": manifest()})
    # chat: 2, 0, 1, 1 rows in bins of 10 to 19, 20 to 29, 30 to 39 and 40 to 50 tokens (11 of them)
    path, flat = [attrs["d"] or "" for attrs in page.all("path", "shape")]
    tops = [float(top) for top in re.findall(r"V([\d.]+)H", path)]
    assert tops == [0.0, 130.0, 65.0, pytest.approx(130 * (1 - 1 / 11 / 0.2), abs=0.05)]
    right = [float(x) for x in re.findall(r"H([\d.]+)", path)]
    assert right == pytest.approx([1000 * (n + 0.5) / 50.5 for n in (19, 29, 39, 50)], abs=0.05)
    assert flat == "M0.0 130V0.0H1000.0V130Z"  # every row has 7 tokens
    assert "10 to 19 tokens: 2 rows" in page.texts
    assert "7 tokens: 2,000 rows" in page.texts
    labels = [attrs["aria-label"] for attrs in page.all("div") if attrs.get("role") == "img"]
    assert labels == [
        "chat: 4 rows of 10 to 50 tokens, median 20; most often 10 to 19 tokens.",
        "maths: 2,000 rows of 7 to 7 tokens, median 7; most often 7 tokens.",
        "chat: min 10, p25 10, p50 20, p75 35, p95 47, max 50",
        "maths: min 7, p25 7, p50 7, p75 7, p95 7, max 7",
    ]


def test_bins_narrower_than_a_token_are_put_together() -> None:
    found = bins_of(lengths([10, 10, 12, 14], 8))  # half a token each
    assert found == [
        Bin(n, n, rows) for n, rows in zip(range(10, 15), (2, 0, 1, 0, 1), strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(1, 60))
def test_bins_hold_exactly_the_rows_of_their_lengths(values: list[int], bins: int) -> None:
    found = bins_of(lengths(values, bins))
    assert [b.rows for b in found] == [sum(b.first <= v <= b.last for v in values) for b in found]
    assert found[0].first == min(values)
    assert found[-1].last == max(values)
    assert all(a.last + 1 == b.first for a, b in pairwise(found))


@pytest.mark.parametrize(
    "damaged",
    [
        None, "x", [], {}, {"edges": [1, 2]}, {"edges": [1, 2, 3], "counts": [1]},
        {"edges": [2, 2], "counts": [1]}, {"edges": [1, "2"], "counts": [1]},
        {"edges": [1, float("nan")], "counts": [1]}, {"edges": [1, 2], "counts": [-1]},
        {"edges": [1, 9], "counts": [0]},
    ],
)  # fmt: skip
def test_damaged_lengths_draw_nothing(damaged: Any) -> None:
    assert histogram("chat", damaged) is None
    assert strips([("chat", damaged)]) is None


def test_strips_share_an_axis_which_is_logarithmic_where_sources_differ_by_orders() -> None:
    keys = ("min", "p25", "p50", "p75", "p95", "max")
    short = dict(zip(keys, (10, 10, 10, 10, 10, 10), strict=True))
    long = dict(zip(keys, (10, 100, 100, 1000, 1000, 1000), strict=True))
    made = strips([("short", short), ("long", long)])
    assert made is not None and made.log
    assert made.rows[1].at == {"min": 0, "p25": 50, "p50": 50, "p75": 100, "p95": 100, "max": 100}
    assert [tick.text for tick in made.ticks] == ["10", "50", "200", "1,000"]
    alike = strips([("a", {**long, "min": 900, "p25": 900, "p50": 900})])
    assert alike is not None and not alike.log
    assert alike.rows[0].at["p50"] == 90


def test_sources_with_other_steps_share_one_order() -> None:
    def source(*names: str) -> Source:
        made = [{"step": name, "rows_before": 5, "rows_after": 5} for name in names]
        return view({"sources": [{"source": "s", "steps": made}]}).sources[0]

    order, lines = step_table([source("read", "draw"), source("read", "pii", "length", "draw")])
    assert order == ["read", "pii", "length", "draw"]
    assert [[step is not None for step in line] for _, line in lines] == [
        [True, False, False, True],
        [True] * 4,
    ]


def test_names_stay_text(tmp_path: Path) -> None:
    hostile = manifest()
    for source in hostile["sources"]:
        source |= {"source": HOSTILE, "path": HOSTILE, "license": HOSTILE}
        source["dropped"] = source["flagged"] = source["repairs"] = {HOSTILE: 1}
        source["steps"][1]["step"] = HOSTILE
    for entry in hostile["contamination"]:
        entry |= {"source": HOSTILE, "eval_set": HOSTILE + entry["eval_set"]}
    hostile["decontaminate"]["mode"] = HOSTILE
    page = rendered(tmp_path, {HOSTILE: hostile})
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe"} == set()
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert page.lines[1][0] == f"{SHOWN} {SHOWN}"  # name and licence
    assert page.text.count(SHOWN) > 20
    assert "{{" in page.text and "49" not in page.text


def test_the_page_fetches_and_runs_nothing(tmp_path: Path) -> None:
    path = write_data_report({"sft": manifest(), "dpo": manifest()}, tmp_path / "a" / "page.html")
    html = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|@import|url\(|<script", html)
    links = [v for _, attrs in Page(html).tags for k, v in attrs.items() if k in ("href", "src")]
    assert links == ["data:,", "#stage-1", "#stage-2"]


def test_older_manifests_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    row = {"source": "chat", "rows_read": 10, "rows_taken": 8, "dropped": {"too long": 2}}
    row |= {"tokens": 50, "trained_tokens": 20}
    page = rendered(tmp_path, {"sft": {"sources": [row]}})
    assert page.lines[1] == [
        "chat",
        "10",
        "8",
        "too long 2",
        "50",
        "20",
        "100.0%",
        "100.0%",
        "40.0%",
    ]
    assert "Tokens per row" not in page.text
    assert len(page.lines) == 2


@pytest.mark.parametrize(
    "damaged",
    [
        {}, {"sources": None}, {"sources": "x"}, {"sources": [None, 3, {}]}, [], None,
        {"sources": [{"steps": [{}, 3], "dropped": [1], "lengths": 7, "tokens": "many"}]},
        {"sources": [{"rows_taken": 0}], "contamination": [{}, 3, {"source": "a"}]},
        {"sources": [{"rows_taken": True}], "contamination": {"a": 1}, "decontaminate": "x"},
    ],
)  # fmt: skip
def test_damaged_manifests_give_a_page(tmp_path: Path, damaged: Any) -> None:
    assert "sft" in rendered(tmp_path, {"sft": damaged}).text
    folder = tmp_path / "run" / "1-sft"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"mixture": damaged}))
    assert "Mixture" in Page(write_report(tmp_path / "run").read_text(encoding="utf-8")).text


def test_the_report_of_a_run_shows_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "1-sft"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"status": "done", "mixture": manifest()}))
    run = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    alone = rendered(tmp_path, {"sft": manifest()})
    assert run.lines == alone.lines
    assert run.all("path", "shape") == alone.all("path", "shape")
    assert "sft: contaminated, and not cleaned: chat" in run.text


def test_what_is_wrong_is_said_first(tmp_path: Path) -> None:
    found = manifest()
    found["sources"][0] |= {"trained_tokens": 0}
    found["sources"][0]["steps"].append(
        {"step": "decontaminate", "rows_before": 4, "rows_after": 3}
    )
    text = rendered(tmp_path, {"sft": found}).text
    assert "sft: 25.0% of the rows of chat are truncated." in text
    assert "sft: nothing of chat is trained." in text
    assert "not cleaned" not in text  # its rows were dropped


def test_shares_that_are_not_zero_do_not_look_like_it() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.0005, 0.5, None)] == [
        "0.0%", "<0.1%", "0.1%", "50.0%", "—",
    ]  # fmt: skip


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(RunError, match="cannot write"):
            write_data_report({}, place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def many(count: int) -> dict[str, Any]:
    found = manifest()
    found["sources"] = [
        found["sources"][0] | {"source": f"organisation/a-rather-long-name-of-a-source-{i}"}
        for i in range(count)
    ]
    return found


def test_a_page_of_twenty_sources_stays_small(tmp_path: Path) -> None:
    path = write_data_report({"sft": many(20)}, tmp_path / "page.html")
    assert path.stat().st_size < 150_000
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("figure", "hist")) == 20
    assert len(page.all("div", "facets")) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, width: int) -> None:
    html = write_data_report({"sft": many(20)}, tmp_path / "page.html").read_text(encoding="utf-8")
    tell = "<script>onload = () => parent.postMessage(document.documentElement.scrollWidth, '*')"
    html = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", f"{tell}</script></body>")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    frame = tmp_path / "frame.html"  # a window is never narrower than 500 pixels
    frame.write_text(
        "<script>onmessage = event => { document.title = 'width ' + event.data; }</script>"
        f"<iframe src='page.html' width='{width}' height='900' style='border:0'></iframe>"
    )
    flags = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "dump-dom"]
    flags += ["disable-background-networking", "disable-component-update", "disable-sync"]
    flags += [f"user-data-dir={tmp_path / 'profile'}", "virtual-time-budget=3000"]
    command = ["chromium", *(f"--{flag}" for flag in flags), f"file://{frame}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"width (\d+)", done.stdout)
    assert found is not None and int(found[1]) <= width
