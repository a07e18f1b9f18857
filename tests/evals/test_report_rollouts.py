"""Rollouts in the report: a few of them, the best beside the worst, whatever the files hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain.evals.report import write_report
from posttrain.evals.report.rollouts import MOST_ROWS, read_rollouts, spaced

HOSTILE = "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b"
SHOWN = "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}␛"


class Page(HTMLParser):
    """Reads a page, insists that tags close in order, and keeps texts and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def answers(row: int, *rewards: float | None, **more: Any) -> list[dict[str, Any]]:
    """The completions of problem `row`, in the order of their rewards."""
    return [
        {
            "row": row,
            "source": "sums",
            "verifier": "gsm8k",
            "prompt": f"<|user|>\nQuestion {row}?\n<|assistant|>\n",
            "completion": f"Answer {row}.{g}.",
            "tokens": 7 + g,
            "finished": g > 0,
            "reward": value,
            "advantage": None if value is None else value - 0.5,
            **more,
        }
        for g, value in enumerate(rewards)
    ]


def write(run: Path, step: int, rows: list[dict[str, Any]], process: int = 0, **how: Any) -> Path:
    path = run / "1-rlvr" / "rollouts" / f"{step:06}-{process}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **how)
    return path


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def folder(run: Path) -> Path:
    return run / "1-rlvr" / "rollouts"


def test_the_best_and_the_worst_completion_are_on_the_page(tmp_path: Path) -> None:
    write(tmp_path, 12, answers(3, 0.25, 1.0, 0.5, 0.0) + answers(4, 1.0, 1.0))
    text = page_of(tmp_path).text
    for piece in (
        "rlvr 1 of 1 rollouts At step 12 reward 0 to 1 <|user|> Question 3?",
        "source sums verifier gsm8k prompt <|user|> Question 3? <|assistant|>",
        "best of 4 reward 1 · advantage 0.5 · 8 tokens Answer 3.1.",
        "worst of 4 reward 0 · advantage -0.5 · 10 tokens Answer 3.3.",
        "reward 1, all equal",
        "one of 2 reward 1 · advantage 0.5 · 7 tokens · cut off Answer 4.0.",
        "one of 2 reward 1 · advantage 0.5 · 8 tokens Answer 4.1.",
    ):
        assert piece in text
    assert "Answer 3.0" not in text and "Answer 3.2" not in text


def test_a_lone_completion_and_what_is_not_known(tmp_path: Path) -> None:
    rows = answers(1, -10.0, advantage=None) + answers(2, None, tokens=None, completion="")
    write(tmp_path, 0, rows)
    text = page_of(tmp_path).text
    assert "completion reward -10 · 7 tokens · cut off Answer 1.0." in text
    assert "completion reward — · cut off empty" in text


def test_steps_are_spread_from_the_first_to_the_last(tmp_path: Path) -> None:
    for step in range(0, 40, 2):
        write(tmp_path, step, answers(step, 0.0, 1.0))
    page = page_of(tmp_path)
    assert re.findall(r"At step (\d+)", page.text) == ["0", "8", "18", "28", "38"]
    assert "5 of 20 rollouts" in page.text
    open_steps = [a for tag, a in page.tags if tag == "details" and "fold sheet" in a["class"]]
    assert ["open" in attributes for attributes in open_steps] == [False] * 4 + [True]
    assert spaced([3, 5], 5) == [3, 5]


def test_every_source_has_a_prompt_before_any_has_two(tmp_path: Path) -> None:
    rows = [row for i in range(8) for row in answers(i, 0.0, 1.0)]
    rows += answers(8, 0.0, 1.0, source="rare") + answers(9, 0.0, 1.0, verifier="math")
    write(tmp_path, 1, rows)
    [moment] = read_rollouts(folder(tmp_path)).moments
    assert [one.best["row"] for one in moment.asked] == [0, 8, 9, 1]


def test_processes_are_read_one_after_the_other(tmp_path: Path) -> None:
    for process in (0, 1, 10, 2):
        write(tmp_path, 5, answers(process, 0.0, 1.0), process)
    [moment] = read_rollouts(folder(tmp_path)).moments
    assert [one.best["row"] for one in moment.asked] == [0, 1, 2, 10]


def test_so_many_rows_are_read_and_no_prompt_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 7  # 512 rows hold 73 whole groups and one row of the next
    rows = [row for i in range(300) for row in answers(i, *range(size), source=f"s{i}")]
    path = write(tmp_path, 1, rows, row_group_size=64)
    asked = []
    inner = pq.ParquetFile.iter_batches

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        for batch in inner(self, *args, **kwargs):
            asked.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    monkeypatch.setattr("posttrain.evals.report.rollouts.SHOWN_PROMPTS", 1000)
    [moment] = read_rollouts(path.parent).moments
    assert sum(asked) == MOST_ROWS
    assert {one.count for one in moment.asked} == {size} and len(moment.asked) == MOST_ROWS // size
    # all completions of one prompt: its first ones
    write(tmp_path, 1, answers(0, *range(1000)))
    [moment] = read_rollouts(path.parent).moments
    assert [one.count for one in moment.asked] == [MOST_ROWS]


def test_a_page_of_long_rollouts_stays_small(tmp_path: Path) -> None:
    for step in range(100):
        texts = {"completion": "c" * 100_000, "prompt": "p" * 50_000}
        write(tmp_path, step, [r for i in range(9) for r in answers(i, 0.0, 1.0, **texts)])
    report = write_report(tmp_path)
    assert report.stat().st_size < 200_000
    assert "98,500 characters left out" in report.read_text()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "overwritten": lambda path: path.write_bytes(
        path.read_bytes()[:4] + b"\xff" * 900 + path.read_bytes()[904:]
    ),
    "no parquet": lambda path: path.write_text("step,row\n1,2\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_said_and_the_others_are_shown(tmp_path: Path, damage: Any) -> None:
    write(tmp_path, 1, answers(1, 0.0, 1.0))
    damage(write(tmp_path, 2, answers(2, 0.0, 1.0)))
    write(tmp_path, 2, answers(3, 0.0, 1.0), process=1)
    (folder(tmp_path) / ".000003-0.parquet.tmp").write_bytes(b"half of")
    text = page_of(tmp_path).text
    assert "1 file(s) of 1-rlvr/rollouts could not be read: 000002-0.parquet (" in text
    assert "Answer 1.1." in text and "Answer 3.1." in text and "Answer 2.1." not in text
    assert "2 of 2 rollouts" in text


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"other": 1}],
        [{"completion": {"a": [1]}, "prompt": 3, "reward": "high", "tokens": [], "row": None}],
        [{"reward": float("nan"), "row": 1}, {"reward": float("inf"), "row": 1}],
    ],
)
def test_columns_of_another_kind_are_survived(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write(tmp_path, 1, rows)
    write(tmp_path, 2, answers(1, 0.0, 1.0))
    text = page_of(tmp_path).text
    assert "Answer 1.1." in text
    assert "could not be read" not in text


def test_hostile_completions_stay_text(tmp_path: Path) -> None:
    names = ("completion", "prompt", "source", "verifier")
    write(tmp_path, 1, answers(1, 1.0, **dict.fromkeys(names, HOSTILE)))
    page = page_of(tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert page.text.count(SHOWN) == 5  # and the title
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_without_rollouts_there_is_no_section(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    page = page_of(tmp_path)
    assert "Rollouts" not in page.text and "#rollouts" not in str(page.tags)


def test_two_stages_have_a_sample_each(tmp_path: Path) -> None:
    write(tmp_path, 1, answers(1, 0.0, 1.0))
    write(tmp_path, 2, answers(2, 0.0, 1.0))
    folder(tmp_path).parent.rename(tmp_path / "10-more")
    write(tmp_path, 7, answers(3, 0.0, 1.0))
    text = page_of(tmp_path).text
    assert text.index("rlvr 1 of 1 rollouts") < text.index("more 2 of 2 rollouts")
