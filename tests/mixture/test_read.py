"""Reading a source: the same on any number of workers, from the cache where nothing changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import posttrain.mixture.read as read_module
from posttrain.decontamination import Decontamination, Decontaminator, EvalSet
from posttrain.errors import DataError
from posttrain.mixture import Guard, Mixture, build_mixture
from posttrain.mixture.part import Plan
from posttrain.mixture.read import Reading, code_of
from posttrain.recipe import Source
from posttrain.sources import Chunk, Opened
from posttrain.sources.chunks import CHUNK_ROWS

QUESTION = "A train leaves the station at nine and arrives at noon how far did it go"


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def say(text: str) -> dict[str, Any]:
    return {"prompt": f"Say {text}.", "completion": text}


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`cold()` forgets everything that was cached."""
    number = iter(range(100))

    def forget() -> None:
        monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / f"cache{next(number)}"))

    forget()
    return forget


def test_the_order_is_the_same_on_1_2_and_8_workers(
    tmp_path: Path, cold: Callable[[], None]
) -> None:
    rows = [say(f"{i % 7000}") for i in range(6 * CHUNK_ROWS)]
    entries = [
        {"path": write(tmp_path / "a.jsonl", rows), "fraction": 0.5},
        {
            "path": write(
                tmp_path / "b.jsonl", [say(f"b{i % 4000}") for i in range(3 * CHUNK_ROWS)]
            ),
            "num_samples": 20_000,
        },
    ]
    filters = ["exact_duplicates", {"name": "length", "max": 100, "unit": "characters"}]
    made = []
    for workers in (1, 2, 8):
        cold()
        mixture = build_mixture(
            entries, seed=3, filters=filters, workers=workers, eval_fraction=0.1
        )
        made.append((mixture.manifest, list(mixture.rows[:500]), list(mixture.held_out[:50])))
    assert made[0] == made[1] == made[2]


def test_only_a_source_that_changed_is_read_again(
    tmp_path: Path, cold: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "one.jsonl", [say("a"), say("b")])
    two = write(tmp_path / "two.jsonl", [say("c")])
    told: list[str] = []

    def build() -> list[str]:
        told.clear()
        build_mixture([{"path": one}, {"path": two}], progress=lambda name, rows: told.append(name))
        return list(told)

    assert build() == ["one", "two"]
    assert build() == []
    write(Path(two), [say("d")])
    assert build() == ["two"]
    monkeypatch.setattr(read_module, "code_of", lambda *rooms: "another version")
    assert build() == ["one", "two"]


def test_the_code_of_a_room_is_part_of_its_rows() -> None:
    assert code_of("filters") != code_of("formats")
    assert code_of("store") == code_of("store") != code_of("errors")


def test_every_setting_makes_other_rows(tmp_path: Path, cold: Callable[[], None]) -> None:
    path = write(tmp_path / "a.jsonl", [say("a"), {"frage": "?", "prompt": "x", "completion": "y"}])
    plain = build_mixture([{"path": path}]).parts[0].store.folder
    for entry, options in [
        ({"columns": {"prompt": "completion"}}, {}),
        ({"format": {"name": "chat"}}, {}),
        ({}, {"filters": ["empty_turns"]}),
        ({"filters": ["empty_turns"]}, {}),
        (
            {},
            {
                "guard": Guard(
                    Decontamination(), Decontaminator([EvalSet("e", ["a b c d e f g h"])])
                )
            },
        ),
    ]:
        other = build_mixture([{"path": path, **entry}], bad_rows="drop", **options)
        same = other.parts[0].store.folder == plain
        assert same == (entry.get("format") == {"name": "chat"})  # what it is read as anyway


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    good = json.dumps(say("a"))
    path = tmp_path / "bad.jsonl"
    lines = [good, '{"prompt": ', "[1]", "", good.replace("a", "b"), '{"a": NaN']
    path.write_bytes(b"\n".join(line.encode() for line in lines) + b"\n\xff\xfe\n")
    with pytest.raises(DataError) as caught:
        build_mixture([{"path": str(path)}])
    message = str(caught.value)
    for place in (":2 is not JSON", ":3 must be an object", ":6 is not JSON", ":7 is not UTF-8"):
        assert f"bad.jsonl{place}" in message
    mixture = build_mixture([{"path": str(path)}], bad_rows="drop")
    [entry] = mixture.manifest["sources"]
    assert entry["dropped"] == {
        "a line is not JSON": 2,
        "a line must be an object, it is of type list": 1,
        "a line is not UTF-8 text": 1,
    }
    assert (entry["rows_read"], entry["rows_taken"]) == (6, 2)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (
            "a.csv",
            "prompt,completion\nSay a.,a\nSay b.\nSay c.,c\n",
            "a line has more or fewer values than the 2 names of the first line",
        ),
        (
            "a.json",
            json.dumps([say("a"), 7, say("b")]),
            "a line must be an object, it is of type int",
        ),
    ],
)
def test_a_row_that_is_none_is_one_row_in_every_kind_of_file(
    name: str, data: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(data)
    [entry] = build_mixture([{"path": str(tmp_path / name)}], bad_rows="drop").manifest["sources"]
    assert (entry["rows_taken"], entry["dropped"]) == (2, {reason: 1})
    with pytest.raises(DataError, match=rf"{name}: row 2 .*\n.*`bad_rows: drop`"):
        build_mixture([{"path": str(tmp_path / name)}])


def test_a_truncated_gzip_stops_whatever_bad_rows_says(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(say(str(i))) + "\n" for i in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    for bad_rows in ("error", "drop"):
        with pytest.raises(DataError, match=r"cut\.jsonl\.gz is damaged"):
            build_mixture([{"path": str(path)}], bad_rows=bad_rows)
    path.write_bytes(whole)
    assert len(build_mixture([{"path": str(path)}]).rows) == 5000


def test_dropped_rows_are_kept_aside_with_their_reason(tmp_path: Path) -> None:
    rows = [say("a"), {"prompt": "?"}, say("b" * 50)]
    entry = {
        "path": write(tmp_path / "a.jsonl", rows),
        "filters": [{"name": "length", "max": 40, "unit": "characters"}],
    }
    store = build_mixture([entry], bad_rows="drop").parts[0].store
    dropped = [json.loads(store.read("dropped", i)) for i in range(2)]
    assert [(d["number"], d["step"]) for d in dropped] == [(2, "read"), (3, "length")]
    assert dropped[0]["row"] == {"prompt": "?"} and dropped[0]["file"] == entry["path"]
    assert dropped[1]["row"]["messages"][1]["content"] == "b" * 50


def test_a_filter_of_one_source_leaves_the_others_alone(tmp_path: Path) -> None:
    rows = [say("a"), say("a")]
    one = {"path": write(tmp_path / "one.jsonl", rows), "filters": ["exact_duplicates"]}
    two = {"path": write(tmp_path / "two.jsonl", [*rows, say("b")])}
    mixture = build_mixture([one, two])
    assert [entry["rows_taken"] for entry in mixture.manifest["sources"]] == [1, 3]
    mixture = build_mixture([one, two], filters=["exact_duplicates"])
    assert [entry["rows_taken"] for entry in mixture.manifest["sources"]] == [1, 1]


def test_rows_of_a_stream_format(tmp_path: Path) -> None:
    """Several raw rows make one conversation: OpenAssistant's messages, a row each."""
    base = {"message_tree_id": "t", "lang": "en", "deleted": False, "review_result": True}
    rows = [
        base
        | {"message_id": "1", "parent_id": None, "role": "prompter", "text": "Hi", "rank": None},
        base | {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "Yo", "rank": 0},
    ]
    mixture = build_mixture([{"path": write(tmp_path / "oasst.jsonl", rows)}])
    assert [m["content"] for m in mixture.rows[0]["messages"]] == ["Hi", "Yo"]


def test_bad_rows_of_a_stream_format_are_told_of_with_their_line(tmp_path: Path) -> None:
    base = {"message_tree_id": "t", "lang": "en"}
    first = base | {"message_id": "1", "parent_id": None, "role": "prompter", "text": "Hi"}
    answer = base | {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "Yo"}
    no_text = answer | {"message_id": "3", "text": None}
    other = first | {"message_tree_id": "u", "lang": "de"}
    lines = [json.dumps(first), "{", *map(json.dumps, (no_text, answer, other))]
    (tmp_path / "oasst.jsonl").write_text("\n".join(lines))
    source = {"path": str(tmp_path / "oasst.jsonl"), "format": {"name": "oasst", "lang": "en"}}
    with pytest.raises(DataError) as caught:
        build_mixture([source])
    for place in (":2 is not JSON", ":3 needs `text`, got None"):
        assert f"oasst.jsonl{place}" in str(caught.value)
    [entry] = build_mixture([source], bad_rows="drop").manifest["sources"]
    assert entry["rows_taken"] == 1 and entry["dropped"] == {
        "a line is not JSON": 1,
        "a line needs `text`": 1,
        "the tree is in another language": 1,
    }


def contaminated(tmp_path: Path, action: str, dataset_threshold: float = 0.02) -> Mixture:
    rows = [say("a"), {"prompt": f"Please: {QUESTION}?", "completion": "Far."}, say("b")]
    prompts = [QUESTION, "Is this another question or what is it now"]
    settings = Decontamination(action=action, dataset_threshold=dataset_threshold)
    guard = Guard(settings, Decontaminator([EvalSet("trains", prompts)]))
    return build_mixture([{"path": write(tmp_path / "a.jsonl", rows)}], guard=guard)


def test_options_of_a_stream_format_are_part_of_the_key(tmp_path: Path) -> None:
    base = {"message_tree_id": "t", "lang": "en", "deleted": False, "review_result": True}
    first = {"message_id": "1", "parent_id": None, "role": "prompter", "text": "Hi", "rank": None}
    answers = [
        {"message_id": str(2 + i), "parent_id": "1", "role": "assistant", "text": t, "rank": i}
        for i, t in enumerate(("Yo", "Ho"))
    ]
    path = write(tmp_path / "oasst.jsonl", [base | row for row in (first, *answers)])
    counts = [
        len(build_mixture([{"path": path, "format": {"name": "oasst", "paths": paths}}]).rows)
        for paths in ("all", "best")
    ]
    assert counts == [2, 1]


def test_the_same_bytes_under_another_ending_are_other_rows(tmp_path: Path) -> None:
    lines, text = tmp_path / "a.jsonl", tmp_path / "a.txt"
    for path in (lines, text):
        write(path, [{"text": "one"}])
    found = [build_mixture([{"path": str(p)}], "text").rows[0]["text"] for p in (lines, text)]
    assert found == ["one", '{"text": "one"}']


def test_configurations_and_splits_of_one_commit_are_told_apart() -> None:
    """A hub commit names a repository, not the rows that an entry reads of it."""

    def opener(source: Source, seed: int) -> Opened:
        return Opened([say(f"{source.name} {source.split}")], "c0ffee", None, pin="c0ffee")

    entries = [{"path": "a/b", "name": n, "split": s} for n in ("x", "y") for s in ("dev", "test")]
    rows = build_mixture(entries, opener=opener).rows
    found = sorted(row["messages"][1]["content"] for row in rows)
    assert found == ["x dev", "x test", "y dev", "y test"]


def test_a_row_of_which_a_format_makes_nothing_is_counted() -> None:
    out = Reading(Plan("conversation", format=lambda raw: []), [], Chunk("f", 1, [{}]))
    out.take(1, {})
    assert dict(out.dropped) == {("format", "the format makes no row of it"): 1} and out.read == 1


def test_rows_that_hold_an_evaluation_prompt_are_dropped(tmp_path: Path) -> None:
    mixture = contaminated(tmp_path, "drop_rows")
    [entry], [rate] = mixture.manifest["sources"], mixture.manifest["contamination"]
    assert entry["dropped"] == {"it holds a prompt of trains": 1} and len(mixture.rows) == 2
    assert (rate["eval_rows"], rate["eval_share"], rate["train_rows"]) == (1, 0.5, 1)
    assert rate["contaminated"] and rate["eval_set"] == "trains"
    assert mixture.parts[0].matches[0][:3] == (1, 0, 0)


def test_a_source_that_is_the_evaluation_set_is_kept_and_told_of(tmp_path: Path) -> None:
    """Dropping two of three rows would clean nothing."""
    rows = [{"prompt": f"{i}: {QUESTION}?", "completion": "Far."} for i in range(2)] + [say("a")]
    guard = Guard(Decontamination(), Decontaminator([EvalSet("trains", [QUESTION])]))
    mixture = build_mixture([{"path": write(tmp_path / "a.jsonl", rows)}], guard=guard)
    [rate] = mixture.manifest["contamination"]
    assert len(mixture.rows) == 3 and rate["kept_whole"] and rate["contaminated"]
    guard = Guard(Decontamination(action="error"), guard.finder)
    with pytest.raises(DataError, match="holds 100"):
        build_mixture([{"path": write(tmp_path / "a.jsonl", rows)}], guard=guard)


def test_the_other_actions(tmp_path: Path) -> None:
    assert len(contaminated(tmp_path, "report").rows) == 3
    with pytest.raises(
        DataError, match=r"no usable row \(3 rows: the source holds too much of trains"
    ):
        contaminated(tmp_path, "drop_set")
    assert len(contaminated(tmp_path, "drop_set", dataset_threshold=0.5).rows) == 2
    with pytest.raises(DataError, match=r"holds 50\.0% of the evaluation set 'trains'"):
        contaminated(tmp_path, "error")
    assert len(contaminated(tmp_path, "error", dataset_threshold=0.5).rows) == 2
