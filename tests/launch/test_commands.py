"""The other commands as scripts use them: what they write, and JSON alone on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

pytestmark = pytest.mark.slow

COLUMNS = {
    "sft": {"input_ids", "labels", "source"},
    "dpo": {"prompt_ids", "chosen_ids", "rejected_ids", "source"},
    "reward": {"prompt_ids", "chosen_ids", "rejected_ids", "source"},
    "rlvr": {"prompt_ids", "ground_truth", "verifier", "source"},
}
ROWS = {"sft": 24, "dpo": 20, "reward": 20, "rlvr": 24}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, write_stack: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    write_stack(folder)
    return folder


@pytest.fixture(scope="module")
def run(stack: Path, launch: Callable[..., Any]) -> Path:
    """The folder of a run whose SFT and reward models are there."""
    fields = ["stages.reward.start=sft", "--run_dir", "run"]
    for stage in ("sft", "reward"):
        launch(["posttrain", "run", "stack.yaml", "--stage", stage, *fields], stack)
    return stack / "run"


def test_data_build_writes_a_data_set_per_stage(stack: Path, launch: Callable[..., Any]) -> None:
    done = launch(["posttrain", "data", "build", "stack.yaml", "--out", "data"], stack)
    assert done.printed() == ""
    assert "sft: chats: 24 of 24 rows" in done.said()
    out = stack / "data"
    for stage, columns in COLUMNS.items():
        rows = load_from_disk(str(out / stage))
        assert columns <= set(rows.column_names)
        assert len(rows) == ROWS[stage]
        assert set(rows["source"]) == {Path(stage_file(stage)).stem}
    trained = load_from_disk(str(out / "sft"))[0]
    assert len(trained["input_ids"]) == len(trained["labels"])
    assert {-100} < set(trained["labels"]) < {-100, *trained["input_ids"]}
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    lock = json.loads((out / "mixture.lock").read_text(encoding="utf-8"))
    assert list(manifest) == list(lock) == list(COLUMNS)
    (source,) = manifest["sft"]["sources"]
    tokens = sum(len(row["input_ids"]) for row in load_from_disk(str(out / "sft")))
    assert (source["rows_taken"], source["tokens"]) == (24, tokens)
    assert len(lock["sft"]["sources"][0]["sha256"]) == 64


def stage_file(stage: str) -> str:
    return {"sft": "chats.jsonl", "rlvr": "problems.jsonl"}.get(stage, "pairs.jsonl")


def test_data_build_as_text_stops_before_tokens(stack: Path, launch: Callable[..., Any]) -> None:
    launch(["posttrain", "data", "build", "stack.yaml", "--out", "text", "--text"], stack)
    rows = load_from_disk(str(stack / "text" / "sft"))
    assert set(rows.column_names) == {"messages", "source"}
    texts = (stack / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    given = sorted(json.loads(line)["messages"][0]["content"] for line in texts)
    assert sorted(row["messages"][0]["content"] for row in rows) == given


def test_data_show_marks_the_trained_tokens(stack: Path, launch: Callable[..., Any]) -> None:
    shown = launch(["posttrain", "data", "show", "stack.yaml"], stack).printed()
    assert shown.count("⟦") == shown.count("⟧") == 3 * 1 + 2 * 3 * 2
    answers = [text.split("⟧")[0] for text in shown.split("⟦")[1:]]
    assert all(answer.endswith("</s>") and "<|user|>" not in answer for answer in answers)
    assert shown.count("--- ground truth (ifeval)") == 3


def test_eval_prints_json_alone(run: Path, launch: Callable[..., Any]) -> None:
    names = ["--tasks", "tiny,tiny_preference", "--num_samples", "8", "--max_new_tokens", "8"]
    done = launch(["posttrain", "eval", "run/1-sft/model", *names, "--json"], run.parent)
    scores = json.loads(done.printed())
    assert list(scores) == ["tiny", "tiny_preference"]
    for score in scores.values():
        assert set(score) == {"score", "n", "stderr", "version"}
        assert score["n"] == 8 and 0 <= score["score"] <= 1
    assert "tiny_preference: " in done.said()


def test_eval_of_a_reward_model_ranks_pairs(run: Path, launch: Callable[..., Any]) -> None:
    names = ["--tasks", "tiny_preference", "--num_samples", "8", "--json"]
    done = launch(["posttrain", "eval", "run/3-reward/model", *names], run.parent)
    assert json.loads(done.printed())["tiny_preference"]["n"] == 8


@pytest.mark.parametrize("rows", ["7", "1"])  # of one row a process gets none
def test_eval_on_two_processes_is_that_of_one(
    rows: str, run: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    names = ["run/1-sft/model", "--tasks", "tiny,tiny_preference", "--max_new_tokens", "8"]
    names += ["--num_samples", rows, "--json"]
    one = launch(["posttrain", "eval", *names], run.parent)
    two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
    both = launch([*two, "-m", "posttrain", "eval", *names], run.parent)
    assert json.loads(both.printed()) == json.loads(one.printed())
    assert both.said().count("tiny_preference: ") == 1


def test_score_gives_each_row_its_verdict(tmp_path: Path, launch: Callable[..., Any]) -> None:
    rows = [
        {"response": "6*7=42. The answer is 42.", "ground_truth": "42", "verifier": "gsm8k"},
        {"response": "The answer is 41.", "ground_truth": "42", "verifier": "gsm8k", "id": 7},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "answers.jsonl").write_text(text, encoding="utf-8")
    done = launch(["posttrain", "score", "answers.jsonl", "--out", "scored.jsonl"], tmp_path)
    assert done.printed() == "" and "mean score 0.5" in done.said()
    lines = (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()
    scored = [json.loads(line) for line in lines]
    assert [row["score"] for row in scored] == [1.0, 0.0]
    assert all(row["reason"] for row in scored)
    kept = [{k: v for k, v in row.items() if k not in ("score", "reason")} for row in scored]
    assert kept == rows
