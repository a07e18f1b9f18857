"""The report: what a run folder holds must be on the page, and nothing in it may harm the page."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain.errors import RunError
from posttrain.evals.report import write_report
from posttrain.evals.report.folder import read_run_folder

VOID = {"meta", "link", "br"}
HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\x00\ud800"


class Page(HTMLParser):
    """Reads a page, insists that tags close in order, and keeps text, titles and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and css_class in f" {attrs.get('class') or ''} "
        ]


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def dump_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def score(value: float, n: int = 400) -> dict[str, Any]:
    stderr = math.sqrt(value * (1 - value) / n)
    return {"score": value, "n": n, "stderr": stderr, "version": "1"}


def log(name: str, steps: int, curves: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per step; each curve is a function of the share of the steps done, plus noise."""
    rng = random.Random(name)
    rows = []
    for step in range(1, steps + 1):
        values = {key: f(step / steps) + rng.gauss(0, noise) for key, (f, noise) in curves.items()}
        rows.append({"stage": name, "step": step, **values})
    return rows


def sft_curves(sources: list[str]) -> dict[str, Any]:
    def loss(scale: float) -> Any:
        return lambda t: scale * (0.35 + 3.4 * math.exp(-7 * t)), 0.06

    by_source = {f"loss/{source}": loss(0.7 + 0.18 * i) for i, source in enumerate(sources)}
    rate = (lambda t: 1e-3 * min(30 * t, 1 - t), 0)
    return {"loss": loss(1), "learning_rate": rate, "grad_norm": (lambda t: 0.9, 0.2), **by_source}


DPO = {
    "loss": (lambda t: 0.69 * math.exp(-1.7 * t), 0.01),
    "accuracy": (lambda t: 0.5 + 0.45 * t, 0.02),
    "rewards/chosen": (lambda t: 1.5 * t, 0.05),
    "rewards/rejected": (lambda t: -2.6 * t, 0.05),
    "learning_rate": (lambda t: 1e-4 * (1 - t), 0),
}
RLVR = {
    "loss": (lambda t: 0, 0.004),
    "reward": (lambda t: 0.45 + 0.38 * t, 0.04),
    "reward/arithmetic": (lambda t: 0.7 + 0.25 * t, 0.04),
    "reward/constraints": (lambda t: 0.2 + 0.5 * t, 0.06),
    "pass_rate/arithmetic": (lambda t: 0.8 + 0.2 * t, 0),
    "pass_rate/constraints": (lambda t: 0.3 + 0.5 * t, 0),
    "kl": (lambda t: 0.008 * t, 0),
    "entropy": (lambda t: 1.1 - 0.3 * t, 0.02),
    "completion_length": (lambda t: 31, 1),
    "learning_rate": (lambda t: 1e-5, 0),
}
EVALS = {
    "base": {"tiny": score(0.031), "tiny_preference": score(0.49)},
    "sft": {"tiny": score(0.742), "tiny_preference": score(0.512)},
    "dpo": {"tiny": score(0.735), "tiny_preference": score(0.873)},
    "rlvr": {"tiny": score(0.868), "tiny_preference": score(0.861)},
}
ENVIRONMENT = {
    "versions": {"torch": "2.13.0", "python": "3.11.9"},
    "devices": ["cpu"],
    "command": ["posttrain", "run", "recipes/tiny.yaml"],
}


def stage(kind: str, steps: int, seconds: float, status: str = "done") -> dict[str, Any]:
    metrics = {"loss": 0.3517, "tokens": 1234567, "rows": 9000, "loss/chat": 0.2, "accuracy": 1}
    row = {"name": kind, "kind": kind, "status": status, "steps": steps, "seconds": seconds}
    return row | {"metrics": metrics}


def manifest(sources: list[str]) -> dict[str, Any]:
    rows = []
    for k, name in enumerate(sources):
        row = {"source": name, "path": f"generated:{name}", "dropped": {"too long": 12, "odd": k}}
        row |= {"rows_read": 4000 + 17 * k, "rows_taken": 3900 - 80 * k}
        rows.append(row | {"tokens": 180000 + 1001 * k, "trained_tokens": 90000 - 6000 * k})
    return {"status": "done", "mixture": {"sources": rows}}


def transcript_rows(count: int, share: float) -> list[dict[str, Any]]:
    rng = random.Random(count)
    rows = []
    for _ in range(count):
        a, b = rng.randint(11, 99), rng.randint(11, 99)
        answer = a + b if rng.random() < share else a + b - 10
        question = f"Mia has {a} shells and finds {b} more. How many shells does she have now?"
        row = {"prompt": [{"role": "user", "content": question}], "ground_truth": str(a + b)}
        row |= {"completion": f"{a} + {b} = {answer}. The answer is {answer}."}
        row |= {"reason": f"the last number is {answer}, the answer is {a + b}"}
        rows.append(row | {"score": float(answer == a + b)})
    return rows


def write_run(run_dir: Path, sft_steps: int = 600, sft_sources: int = 3) -> Path:
    """A run folder with every piece."""
    run_dir.mkdir(parents=True, exist_ok=True)
    sources = ["arithmetic", "constraints", "chat", *"defghijklmno"][:sft_sources]
    stages = [stage("sft", sft_steps, 171.2), stage("dpo", 120, 60), stage("rlvr", 80, 260)]
    dump(run_dir / "report.json", {"name": "tiny-demo", "stages": stages, "evals": EVALS})
    rows = log("sft", sft_steps, sft_curves(sources)) + log("dpo", 120, DPO) + log("rlvr", 80, RLVR)
    dump_lines(run_dir / "metrics.jsonl", rows)
    for folder in ("1-sft", "2-dpo", "3-rlvr"):
        dump(run_dir / folder / "manifest.json", manifest(sources))
    for name, share in [("base", 0.05), ("sft", 0.7), ("rlvr", 0.8)]:
        dump_lines(run_dir / "transcripts" / name / "tiny.jsonl", transcript_rows(12, share))
    (run_dir / "recipe.resolved.yaml").write_text("name: tiny-demo\nseed: 42\n")
    dump(run_dir / "environment.json", ENVIRONMENT)
    return run_dir


def rendered(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def test_every_piece_is_on_the_page(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path))
    for piece in (
        "sft → dpo → rlvr: 800 optimizer steps in 8 min 11 s.",
        "86.8 % rlvr, from 3.1% (+83.7)",
        "86.8 ± 3.3",  # 1.96 * sqrt(.868 * .132 / 400) = 0.0332
        "51.2 ± 4.9 +2.2 (noise)",  # 2.2 < 1.96 * sqrt(.0250^2 + .0250^2) = 6.9
        "✓ done",
        "loss 0.352 , tokens 1,234,567",
        "arithmetic generated:arithmetic 4,000 3,900 too long 12 , odd 0 180,000 90,000 35.7%",
        "all 12,051 11,460 — 543,003 252,000",
        "10 of 12, in the order of the file",
        "Transcripts of sft",
        "seed: 42",
        "versions.torch 2.13.0",
        "command posttrain run recipes/tiny.yaml",
    ):
        assert piece in page.text
    assert "Before you read" not in page.text
    sections = [attrs["id"] for attrs in page.all("section") if attrs.get("id")]
    assert " ".join(sections) == "scores stages curves mixture transcripts recipe environment"
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_the_page_fetches_and_runs_nothing(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path))
    page = Page(path.read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"} == set()
    links = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("href", "src")]
    assert links and all(link and link.startswith(("#", "data:,")) for link in links)
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert not re.search(r"https?://|@import|url\(", path.read_text(encoding="utf-8"))


def test_charts_speak_to_those_who_do_not_see_them(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path))
    labels = [attrs["aria-label"] or "" for attrs in page.all("div") if attrs.get("role") == "img"]
    assert "Score on tiny: base 3.1%, sft 74.2%, dpo 73.5%, rlvr 86.8%" in labels
    assert "Learning rate. From 1e-5 to 1e-5 over 80 logged steps." in labels
    assert any(label.startswith("Reward. arithmetic: from ") for label in labels)
    assert "step 80\narithmetic 1\nconstraints 0.8" in page.texts  # the pass rates, on hover


def test_bars_show_the_interval(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path))
    # base on tiny: 0.031 +- 1.96 * sqrt(.031 * .969 / 400) = 0.0140 .. 0.0480
    assert "base: 3.1%, 95% interval 1.4 to 4.8" in page.text
    fills = [attrs["width"] for attrs in page.all("rect", " fill ")]
    assert fills[:4] == ["3.1%", "74.2%", "73.5%", "86.8%"]


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        ("report.json", "report.json is missing"),
        ("metrics.jsonl", "metrics.jsonl is missing"),
        ("recipe.resolved.yaml", "recipe.resolved.yaml is missing"),
        ("environment.json", "environment.json is missing"),
        ("transcripts", "The run folder holds no transcripts."),
        ("1-sft", ""),
    ],
)
def test_a_missing_piece_is_said(tmp_path: Path, piece: str, said: str) -> None:
    path = write_run(tmp_path) / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in rendered(tmp_path).text


def test_an_empty_folder_gives_a_page(tmp_path: Path) -> None:
    page = rendered(tmp_path)
    assert tmp_path.name in page.text
    assert "The run folder holds no scores." in page.text
    assert "The run folder holds no manifest." in page.text


@pytest.mark.parametrize(
    "report",
    [
        '{"name": "cut sho',
        "[]",
        '{"stages": "sft", "evals": []}',
        '{"name": 3, "stages": [null, {"kind": "sft"}, {"name": "sft"}], "evals": {"base": null}}',
        '{"evals": {"sft": {"tiny": {"score": null}, "other": 3}}}',
        '{"stages": [{"name": "a", "steps": "x", "seconds": NaN, "metrics": {"loss": Infinity}}]}',
    ],
)
def test_a_damaged_report_json_is_survived(tmp_path: Path, report: str) -> None:
    write_run(tmp_path)
    (tmp_path / "report.json").write_text(report)
    assert "Curves sft Loss" in rendered(tmp_path).text


def test_an_unfinished_run_is_said(tmp_path: Path) -> None:
    stages = [stage("sft", 7, 65, "interrupted")]
    evals = {"sft": {"tiny": {"score": 0.5, "n": 4}}}
    dump(tmp_path / "report.json", {"name": "cut", "stages": stages, "evals": evals})
    page = rendered(tmp_path)
    assert "Stage sft is not done: interrupted." in page.text
    assert "‖ interrupted 7 1 min 05 s" in page.text
    assert "The base model was not evaluated" in page.text
    assert "interval" not in page.text  # no stderr, no error bar


def test_hostile_transcripts_stay_text(tmp_path: Path) -> None:
    row = dict.fromkeys(("completion", "reason", "ground_truth"), HOSTILE) | {"score": 0.5}
    row["prompt"] = [{"role": HOSTILE, "content": HOSTILE}, "no message", {"role": "user"}]
    dump_lines(tmp_path / "transcripts" / "sft" / "tiny.jsonl", [row, ["not", "a", "row"]])
    dump_lines(tmp_path / "metrics.jsonl", [{"stage": HOSTILE, "step": 1, f"loss/{HOSTILE}": 1.0}])
    dump(tmp_path / "report.json", {"name": HOSTILE, "evals": {"base": {HOSTILE: {"score": 1}}}})
    page = rendered(tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    # Title, heading, score row, bars, stage, hover, label, role, prompt, completion, truth, reason.
    shown = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>␀?"
    assert page.text.count(shown) == 12
    assert "partly right 0.50" in page.text
    assert "1 line(s) of transcripts/sft/tiny.jsonl could not be read." in page.text


def test_long_texts_keep_their_head_and_tail(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a plain question", "completion": "h" * 20000 + "the end", "score": 1},
        {"prompt": "a plain question", "completion": "", "score": 0},
    ]
    for name in ("sft", "rlvr"):
        dump_lines(tmp_path / "transcripts" / name / "tiny.jsonl", rows)
    page = rendered(tmp_path)
    assert "14,007 characters left out" in page.text
    assert "18,507 characters left out" in page.text
    assert page.text.count("the end") == 2
    assert "completion empty" in page.text
    assert len(page.all("details", " right ")) == 2
    assert len(page.all("details", " wrong ")) == 2


def test_losses_that_are_not_numbers_break_the_line_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"stage": "sft", "step": 1, "loss": 2.0}\n'
        '{"stage": "sft", "step": 2, "loss": NaN}\n'
        '{"stage": "sft", "step": 3, "loss": null}\n'
        '{"stage": "sft", "step": 4, "loss": -Infinity}\n'
        '{"stage": "sft", "step": 5, "loss": 1.0}\n'
        '{"stage": "sft", "loss": 1.0}\n'
        '{"stage": "sft", "step": 6, "lo'
    )
    page = rendered(tmp_path)
    assert "sft: 3 of 5 logged losses are not finite, the first at step 2." in page.text
    assert "2 line(s) of metrics.jsonl could not be read" in page.text
    assert [a["d"] for a in page.all("path", " line ")] == ["M0.0 0.0h0M1000.0 280.0h0"]


def test_a_run_of_100_000_steps_stays_small(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for i in range(100_000):
            value = 5 / (1 + i / 1000) + (i * 7919 % 101) / 100
            file.write(
                f'{{"stage": "sft", "step": {i}, "loss": {value}, "loss/a": {value + 1}, '
                f'"loss/b": {value / 2}, "grad_norm": {900 if i == 54321 else value}}}\n'
            )
    path = write_report(tmp_path)
    assert path.stat().st_size < 200_000
    assert "spikes up to 900 cut off" in Page(path.read_text()).text


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RunError, match="cannot write"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path / "absent")


def test_folders_are_read_in_the_order_of_the_run(tmp_path: Path) -> None:
    for name in ("10-rlvr", "2-dpo", "1-sft"):
        dump(tmp_path / name / "manifest.json", {})
    dump_lines(tmp_path / "transcripts" / "base" / "tiny.jsonl", [])
    run = read_run_folder(tmp_path)
    assert list(run.manifests) == ["sft", "dpo", "rlvr"]
    assert run.in_order(["other", "rlvr", "base", "sft"]) == ["base", "sft", "rlvr", "other"]


def browse(tmp_path: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    quiet = "no-sandbox disable-gpu no-first-run disable-background-networking "
    quiet += f"disable-component-update disable-sync user-data-dir={tmp_path / 'profile'} "
    quiet += "enable-logging=stderr virtual-time-budget=3000"
    command = ["chromium", "--headless", *(f"--{flag}" for flag in [*quiet.split(), *flags])]
    return subprocess.run(
        [*command, f"file://{page}"], capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_without_error_or_sideways_scrolling(tmp_path: Path, width: int) -> None:
    run_dir = write_run(tmp_path / "run", sft_sources=9)
    rows = [{"prompt": "x" * 3000, "completion": HOSTILE + "y" * 3000, "score": 1}]
    dump_lines(run_dir / "transcripts" / "rlvr" / "wide.jsonl", rows)
    drawn = [{"prompt": "x" * 3000, "completion": "y" * 3000, "source": "s" * 300, "reward": 1.0}]
    (run_dir / "3-rlvr" / "rollouts").mkdir()
    pq.write_table(
        pa.Table.from_pylist(drawn), run_dir / "3-rlvr" / "rollouts" / "000000-0.parquet"
    )
    report = write_report(run_dir)
    picture = tmp_path / "page.png"
    shown = browse(tmp_path, report, f"screenshot={picture}", f"window-size={width},2000")
    assert "CONSOLE" not in shown.stderr
    assert picture.stat().st_size > 30_000

    # A copy that measures itself in a frame, since a window is never narrower than 500 pixels; its
    # message on the console proves that this test would see one.
    probe = (
        "<script>onload = () => { console.error('canary');"
        "parent.postMessage(document.documentElement.scrollWidth, '*'); }</script></body>"
    )
    html = re.sub(r"<meta http-equiv[^>]*>", "", report.read_text(encoding="utf-8"))
    (tmp_path / "copy.html").write_text(html.replace("</body>", probe), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>onmessage = event => { document.title = 'width ' + event.data; }</script>"
        f"<iframe src='copy.html' width='{width}' height='900' style='border:0'></iframe>"
    )
    measured = browse(tmp_path, frame, "dump-dom", "window-size=1400,1000")
    assert "canary" in measured.stderr
    found = re.search(r"width (\d+)", measured.stdout)
    assert found is not None and int(found[1]) <= width
