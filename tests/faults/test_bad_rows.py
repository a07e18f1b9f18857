"""Bad rows of every kind, through the command: repaired by a named rule, dropped with a counted
reason, or refused with file and line. Never a traceback, never silently gone.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

from posttrain.errors import DataError
from posttrain.formats import REPAIRS
from posttrain.pipeline import build_data

USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
GOOD = {"messages": [USER, ANSWER]}
MB = 1 << 20


def turns(*messages: Any) -> str:
    return json.dumps({"messages": list(messages)})


# what happens: "kept" (as it is), the name of a repair, or "dropped"
ROWS: dict[str, tuple[str | bytes, str]] = {
    "wrong role order": (turns(ANSWER, USER, ANSWER), "starts with an answer"),
    "two user turns": (turns(USER, USER, ANSWER), "kept"),
    "no answer": (turns(USER), "dropped"),
    "missing content": (turns({"role": "user"}, ANSWER), "dropped"),
    "null content": (turns({"role": "user", "content": None}, ANSWER), "dropped"),
    "number as content": (turns({"role": "user", "content": 22}, ANSWER), "any"),
    "object as content": (turns({"role": "user", "content": {"a": 1}}, ANSWER), "dropped"),
    "parts as content": (
        turns({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER), "repaired",
    ),
    "an image part": (
        turns({"role": "user", "content": [{"type": "image", "url": "x"}]}, ANSWER), "dropped",
    ),
    "lone surrogate": ('{"prompt": "a \\ud800 b", "completion": "c"}', "any"),
    "nul characters": ('{"prompt": "a \\u0000 b", "completion": "c"}', "any"),
    "5 MB of text": (turns({"role": "user", "content": "word " * MB}, ANSWER), "cut"),
    "5 MB without a space": (turns({"role": "user", "content": "x" * 5 * MB}, ANSWER), "cut"),
    "empty list": ('{"messages": []}', "dropped"),
    "null messages": ('{"messages": null}', "dropped"),
    "messages as JSON text": (json.dumps({"messages": json.dumps(GOOD["messages"])}), "repaired"),
    "messages as other text": ('{"messages": "hello"}', "dropped"),
    "mixed types": (turns(USER, "Four."), "dropped"),
    "human and gpt": (
        turns({"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Ho"}), "repaired",
    ),
    "capital role": (turns(USER, {"role": "Assistant", "content": "Four."}), "repaired"),
    "unknown role": (turns(USER, {"role": "robot", "content": "Four."}), "dropped"),
    "a key twice": ('{"prompt": "2+2?", "completion": "4", "prompt": "3+3?"}', "dropped"),
    "a key twice inside": (turns(USER, ANSWER).replace('"4"', '"4", "content": "5"'), "dropped"),
    "no object": ("[1, 2]", "dropped"),
    "a number": ("17", "dropped"),
    "not JSON": ('{"messages": [', "dropped"),
    "not UTF-8": (b'{"prompt": "K\xe4se", "completion": "x"}', "dropped"),
    "nested too deeply": ('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}", "dropped"),
    "NaN": ('{"prompt": NaN, "completion": "x"}', "dropped"),
    "blank answer": (turns(USER, {"role": "assistant", "content": " \n"}), "dropped"),
    "user speaks last": (turns(USER, ANSWER, USER), "repaired"),
    "other columns": ('{"frage": "?", "antwort": "!"}', "dropped"),
}  # fmt: skip


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path) -> Callable[..., dict[str, Any]]:
    """`build(lines, bad_rows)`: the manifest entry of a source with this line among good ones."""

    def run(line: str | bytes, bad_rows: str) -> dict[str, Any]:
        data = line if isinstance(line, bytes) else line.encode()
        good = json.dumps(GOOD).encode()
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join([good, data, good, b""]))
        stage = {
            "datasets": [{"path": str(tmp_path / "rows.jsonl")}],
            "bad_rows": bad_rows,
            "max_length": 64,
        }
        recipe = {"name": "x", "model_name_or_path": str(checkpoint), "stages": [{"sft": stage}]}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        out = build_data(tmp_path / "recipe.yaml", tmp_path / "out")
        manifest = json.loads((out / "manifest.json").read_text())["sft"]
        [entry] = manifest["sources"]
        assert len(load_from_disk(str(out / "sft"))) == entry["rows_tokenized"]
        return dict(entry)

    return run


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_repaired_or_dropped_and_counted(
    name: str, build: Callable[..., dict[str, Any]]
) -> None:
    line, fate = ROWS[name]
    entry = build(line, "drop")
    lost = sum(entry["dropped"].values())
    assert entry["rows_read"] == 3 and entry["rows_tokenized"] == 3 - lost
    assert set(entry["repairs"]) <= set(REPAIRS)
    if fate == "kept":
        assert (lost, entry["repairs"]) == (0, {})
    elif fate == "repaired":
        assert lost == 0 and sum(entry["repairs"].values()) >= 1
    elif fate == "cut":  # the whole row is prompt within max_length: nothing is left to train on
        assert lost == 1 and "no trained token is left" in next(iter(entry["dropped"]))
    elif fate == "starts with an answer":
        assert lost == 1 and fate in next(iter(entry["dropped"]))
    elif fate == "dropped":
        assert lost == 1
    for reason in entry["dropped"]:
        assert len(reason) <= 300 and "\n" not in reason and "rows.jsonl" not in reason


@pytest.mark.parametrize("name", [name for name, (_, fate) in ROWS.items() if fate == "dropped"])
def test_a_row_that_cannot_be_used_stops_with_file_and_line(
    name: str, build: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(DataError) as caught:
        build(ROWS[name][0], "error")
    message = str(caught.value)
    assert "rows.jsonl:2" in message and "bad_rows: drop" in message and len(message) < 900


PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
PROBLEM = {"prompt": "2+2?", "ground_truth": "4", "verifier": "gsm8k"}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "dpo": (
        PAIR,
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER | {"content": "5"}]},
        "chosen",
    ),
    "rlvr": (PROBLEM, {"messages": [USER], "ground_truth": "4", "dataset": "math"}, "ground_truth"),
}
TOKENS = {"dpo": {"max_length": 64}, "rlvr": {"max_prompt_length": 48, "max_completion_length": 8}}


def bad_lines(stage: str) -> dict[str, str]:
    """Lines that no stage but SFT has met above: name -> line."""
    good, messages, answer = OTHERS[stage]
    turns = "messages" if stage == "rlvr" else "chosen"
    lines: dict[str, Any] = {
        "missing": {k: v for k, v in good.items() if k != answer},
        "null": good | {answer: None},
        "NaN": good | {answer: float("nan")},
        "blank": good | {answer: ""},
        "fraction as prompt": good | {"prompt": 1.5},
        "empty list": messages | {turns: []},
        "missing content": messages | {turns: [{"role": "user"}, *messages[turns][1:]]},
        "answer first": messages | {turns: [ANSWER]},
        "tool first": messages | {turns: [{"role": "tool", "content": "4"}, *messages[turns]]},
    }
    text = {name: json.dumps(line) for name, line in lines.items()}
    return text | {"a key twice": json.dumps(good)[:-1] + ', "prompt": "3+3?"}'}


@pytest.mark.parametrize("stage", OTHERS)
def test_bad_pairs_and_problems(stage: str, tmp_path: Path, checkpoint: Path) -> None:
    good, bad = json.dumps(OTHERS[stage][0]), bad_lines(stage)
    mended = [{"prompt": "a \ud800 b"}, {"prompt": 7}, {"prompt": [USER]}]
    lines = [good, *bad.values(), *(json.dumps(OTHERS[stage][0] | more) for more in mended)]
    lines.append(json.dumps(OTHERS[stage][0] | {"prompt": "word " * MB}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))

    def build(bad_rows: str) -> dict[str, Any]:
        datasets = [{"path": str(tmp_path / "rows.jsonl")}]
        keys = {"datasets": datasets, "bad_rows": bad_rows, **TOKENS[stage]}
        recipe = {"name": "x", "model_name_or_path": str(checkpoint), "stages": [{stage: keys}]}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        out = build_data(tmp_path / "recipe.yaml", tmp_path / "out")
        [entry] = json.loads((out / "manifest.json").read_text())[stage]["sources"]
        return dict(entry)

    entry = build("drop")
    assert entry["rows_read"] == len(lines) and entry["rows_taken"] == len(lines) - len(bad)
    assert entry["rows_tokenized"] == 1 + len(mended)  # five megabytes of prompt are too long
    assert sum(entry["dropped"].values()) == len(bad) + 1
    assert entry["repairs"] == {"surrogates_replaced": 1, "integer_as_text": 1}
    shutil.rmtree(tmp_path / "out")
    for name, line in bad.items():
        (tmp_path / "rows.jsonl").write_text(f"{good}\n{line}\n")
        with pytest.raises(DataError, match=r"rows\.jsonl:2[: ]") as caught:
            build("error")
        assert "bad_rows: drop" in str(caught.value), name


def test_mixed_types_in_a_column(build: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Arrow would refuse a column that is text here and a list there; every row is read alone."""
    entry = build('{"prompt": [{"role": "user", "content": "Hi"}], "completion": "Ho"}', "error")
    assert entry["rows_tokenized"] == 3


def test_a_truncated_gzip_names_the_file(tmp_path: Path, checkpoint: Path) -> None:
    whole = gzip.compress("".join(json.dumps(GOOD) + "\n" for _ in range(2000)).encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[:-20])
    stage = {
        "datasets": [{"path": str(tmp_path / "rows.jsonl.gz")}],
        "bad_rows": "drop",
        "max_length": 64,
    }
    recipe = {"name": "x", "model_name_or_path": str(checkpoint), "stages": [{"sft": stage}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz is damaged"):
        build_data(tmp_path / "recipe.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
