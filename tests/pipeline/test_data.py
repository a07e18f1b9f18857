"""`posttrain data build` and its lock: what is written, what is replayed, what is refused."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

import posttrain.tokens.stores as stores
from posttrain.errors import DataError, RunError
from posttrain.formats import to_row
from posttrain.pipeline import build_data, show_data
from posttrain.pipeline.data_commands import lock_data, stats_data

WORDS = ["red", "green", "blue", "one", "two", "three", "four", "five", "cat", "dog", "horse"]


def rows(number: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "prompt": " ".join(rng.choices(WORDS, k=12)),
            "completion": " ".join(rng.choices(WORDS, k=5)),
        }
        for _ in range(number)
    ]


class Project:
    """A recipe with two sources, in a folder of its own."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.one, self.two = folder / "one.jsonl", folder / "two.jsonl"
        self.write(self.one, rows(30, 1))
        self.write(self.two, rows(20, 2))
        self.stage: dict[str, Any] = {
            "datasets": [{"path": str(self.one)}, {"path": str(self.two)}],
            "max_length": 256,
        }
        self.recipe: dict[str, Any] = {
            "name": "p", "model_name_or_path": model, "chat_template": "tulu", "seed": 5,
        }  # fmt: skip

    def write(self, path: Path, content: list[Any]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")

    @property
    def path(self) -> Path:
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump({**self.recipe, "stages": [{"sft": self.stage}]}))
        return path

    def build(self, name: str = "out", **options: Any) -> Path:
        return build_data(self.path, self.folder / name, **options)

    def manifest(self, out: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((out / "manifest.json").read_text())["sft"]
        return found


@pytest.fixture
def project(
    tmp_path: Path, checkpoint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    return Project(tmp_path, checkpoint("llama"))


def test_what_is_written(project: Project) -> None:
    out = project.build()
    data = load_from_disk(str(out / "sft"))
    assert set(data.column_names) == {"input_ids", "labels", "source"} and len(data) == 50
    manifest = project.manifest(out)
    tokens = {"one": 0, "two": 0}
    trained = dict(tokens)
    for row in data:
        tokens[row["source"]] += len(row["input_ids"])
        trained[row["source"]] += sum(label != -100 for label in row["labels"])
    for entry in manifest["sources"]:
        assert entry["tokens"] == tokens[entry["source"]]
        assert entry["trained_tokens"] == trained[entry["source"]]
        assert sum(entry["lengths"]["counts"]) == entry["rows_taken"]
        assert [step["step"] for step in entry["steps"]] == ["read", "draw", "tokens"]
    samples = (out / "sft" / "samples.txt").read_text(encoding="utf-8")
    assert samples.count("⟦") == 1 + 6  # the heading, and three rows of each source


def test_rows_and_tokens_of_every_step(project: Project, tokenizer: Any) -> None:
    """Against the tokenizer's own template, row by row."""
    limit = 75
    content = rows(40, 1)
    content[3]["prompt"] = ""  # dropped while reading
    content[5]["completion"] = "red " * 90  # dropped by a filter that looks at one row
    content[8] = content[9] = content[7]  # dropped by comparison with others
    project.write(project.one, [*content[:20], {"completion": 7}, *content[20:]])
    project.stage |= {"bad_rows": "drop", "max_length": limit, "eval_fraction": 0.1}
    project.stage["datasets"] = [
        {
            "path": str(project.one),
            "fraction": 0.5,
            "filters": ["empty_turns", {"name": "length", "max": 80}, "exact_duplicates"],
        }
    ]
    out = project.build()
    [entry] = project.manifest(out)["sources"]

    def size(row: dict[str, Any]) -> int:
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
        return len(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))

    sizes = [size(row) for row in content]
    every, same = sum(sizes), sizes[8] + sizes[9]
    kept = every - sizes[3] - sizes[5] - same
    steps = entry["steps"]
    assert [list(step.values()) for step in steps[:4]] == [
        ["read", 41, 40, every, every],
        ["empty_turns", 40, 39, every, every - sizes[3]],
        ["length", 39, 38, every - sizes[3], every - sizes[3] - sizes[5]],
        ["exact_duplicates", 38, 36, kept + same, kept],
    ]
    held, drawn, cut = steps[4:]
    held_rows = load_from_disk(str(out / "sft" / "held_out"))
    assert (held["step"], held["rows_before"], held["rows_after"]) == ("hold_out", 36, 32)
    assert len(held_rows) == 4 and held["tokens_before"] == kept
    by_text = {row["prompt"]: n for row, n in zip(content, sizes, strict=True)}
    texts = [tokenizer.decode(row["input_ids"]) for row in held_rows]
    gone = sum(n for prompt, n in by_text.items() if prompt and any(prompt in t for t in texts))
    assert held["tokens_after"] == drawn["tokens_before"] == kept - gone
    data = load_from_disk(str(out / "sft"))
    texts = [tokenizer.decode(row["input_ids"]) for row in data]
    taken = [n for prompt, n in by_text.items() if prompt and any(prompt in t for t in texts)]
    assert len(taken) == len(data) == drawn["rows_after"] == 16
    assert drawn["tokens_after"] == cut["tokens_before"] == sum(taken)
    assert cut["tokens_after"] == sum(min(n, limit) for n in taken) < sum(taken)


def test_a_build_is_replayed_bit_for_bit(project: Project) -> None:
    project.stage["datasets"][0] |= {"fraction": 0.5, "filters": ["empty_turns"]}
    with_evaluation(project)
    first = project.build("first")
    second = project.build("second", locked=first / "mixture.lock")
    name = "data-00000-of-00001.arrow"
    assert (first / "sft" / name).read_bytes() == (second / "sft" / name).read_bytes()
    assert (first / "mixture.lock").read_bytes() == (second / "mixture.lock").read_bytes()
    project.build("first", locked="")  # over what is there: its own lock says it is the same


@pytest.mark.parametrize("where", range(0, 3000, 271))
def test_any_changed_byte_of_a_source_is_found(project: Project, where: int) -> None:
    lock = project.build() / "mixture.lock"
    data = bytearray(project.two.read_bytes())
    place = where % len(data)
    data[place] ^= 1
    project.two.write_bytes(data)
    with pytest.raises(DataError, match=r"source '.*two\.jsonl' changed: `sha256` was"):
        project.build("again", locked=lock)
    assert not (project.folder / "again").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 6}, r"`seed` was 5 in the lock and is 6"),
        ({"max_length": 70}, r"source '.*one\.jsonl' changed: `(tokens|trained_tokens)` was"),
        ({"filters": ["empty_turns"]}, r"`filters` was \[\] in the lock"),
        ({"eval_fraction": 0.1}, r"`rows_held_out` was 0"),
    ],
)
def test_a_changed_setting_is_found(project: Project, change: dict[str, Any], says: str) -> None:
    lock = project.build() / "mixture.lock"
    project.stage |= change
    with pytest.raises(DataError, match=says):
        project.build("again", locked=lock)


def test_other_sources_than_the_locked_ones(project: Project) -> None:
    lock = project.build() / "mixture.lock"
    project.stage["datasets"].reverse()
    with pytest.raises(DataError, match="the lock is of the sources"):
        project.build("again", locked=lock)


def test_where_a_lock_is_looked_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    with pytest.raises(RunError, match="make one with `posttrain data lock`"):
        project.build(locked="")
    path = lock_data(project.path, None)
    assert path == project.folder / "recipe.lock"
    project.build(locked="")
    project.write(project.one, rows(30, 9))
    with pytest.raises(DataError, match=r"one\.jsonl' changed"):
        project.build("b", locked="")
    assert sorted(p.name for p in project.folder.iterdir() if p.name.startswith(".")) == []


def test_only_a_source_that_changed_is_tokenised_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = stores.make_tokenise

    def counting(job: stores.Job) -> Any:
        tokenise = original(job)

        def count(which: Any) -> Any:
            seen.append(len(which))
            return tokenise(which)

        return count

    monkeypatch.setattr(stores, "make_tokenise", counting)
    project.build("a")
    assert seen == [30, 20]
    project.build("b")
    assert seen == [30, 20]
    project.write(project.two, rows(19, 3))
    project.build("c")
    assert seen == [30, 20, 19]
    project.stage["max_length"] = 200
    project.build("d")
    assert seen == [30, 20, 19, 30, 19]


def test_held_out_rows_are_set_aside(project: Project) -> None:
    project.stage["eval_fraction"] = 0.2
    out = project.build()
    train, held = load_from_disk(str(out / "sft")), load_from_disk(str(out / "sft" / "held_out"))
    assert (len(train), len(held)) == (40, 10)
    assert not {tuple(r["input_ids"]) for r in train} & {tuple(r["input_ids"]) for r in held}
    assert project.manifest(out)["held_out"] == {"fraction": 0.2, "rows": 10}
    assert [e["rows_held_out"] for e in project.manifest(out)["sources"]] == [6, 4]


def test_weights_share_tokens(project: Project) -> None:
    """1 : 3 of 2,000 tokens; each source is over by less than its longest row."""
    project.stage["datasets"][0]["weight"] = 1
    project.stage["datasets"][1]["weight"] = 3
    project.stage["token_budget"] = 2000
    one, two = project.manifest(project.build())["sources"]
    assert 500 <= one["tokens"] < 500 + one["lengths"]["max"]
    assert 1500 <= two["tokens"] < 1500 + two["lengths"]["max"]


def test_mixing_by_size(project: Project) -> None:
    project.stage["mixing"] = {"name": "proportional", "cap": 20, "num_samples": 11}
    manifest = project.manifest(project.build())
    assert [entry["rows_taken"] for entry in manifest["sources"]] == [6, 5]
    assert manifest["mixing"] == project.stage["mixing"]


def test_text_stops_before_tokens(project: Project) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": [1, {"y": None}]}}}
    turns = [
        {"role": "user", "content": "Call f."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3", "name": "f"},
        {"role": "assistant", "content": "It is 3.", "train": False},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    project.write(project.two, [{"messages": turns, "tools": tools}])
    out = project.build(text=True)
    data = load_from_disk(str(out / "sft"))
    assert len(data) == 31 and set(data.column_names) == {"messages", "tools", "source"}
    [row] = [row for row in data if row["source"] == "two"]
    back = to_row("conversation", {k: v for k, v in row.items() if k != "source"})
    assert back == to_row("conversation", {"messages": turns, "tools": tools})
    assert project.manifest(out)["data_sha256"]


def test_dropped_rows_are_written_when_asked(project: Project) -> None:
    content = rows(10, 3)
    project.write(project.two, [*content, content[0], {"prompt": "?"}])
    project.stage |= {"bad_rows": "drop", "filters": ["exact_duplicates"]}
    out = project.build(dropped=True)
    with gzip.open(out / "dropped" / "sft.jsonl.gz", "rt") as file:
        dropped = [json.loads(line) for line in file]
    assert [(d["source"], d["number"], d["step"]) for d in dropped] == [
        ("two", 12, "read"),
        ("two", 11, "exact_duplicates"),
    ]
    assert not (project.build("plain") / "dropped").exists()


EVALUATION = [
    {"question": "How many apples does Ann have if she had nine and ate two of them today?",
     "answer": "9-2=7 #### 7"},
    {"question": "A tailor cuts five metres of cloth into ten pieces, how long is each?",
     "answer": "5/10=0.5 #### 0.5"},
]  # fmt: skip


def with_evaluation(project: Project) -> None:
    project.write(project.folder / "test.jsonl", EVALUATION)
    task = {
        "name": "gsm8k",
        "path": str(project.folder / "test.jsonl"),
        "columns": {"prompt": "question", "ground_truth": "answer"},
    }
    project.recipe["eval"] = {"tasks": [task]}
    leaked = {"prompt": f"Solve this. {EVALUATION[0]['question']}", "completion": "Seven."}
    project.write(project.two, [*rows(19, 2), leaked])


def test_rows_that_hold_a_prompt_of_the_recipes_tasks_are_dropped_by_default(
    project: Project,
) -> None:
    with_evaluation(project)
    out = project.build()
    manifest = project.manifest(out)
    assert manifest["sources"][1]["dropped"] == {"it holds a prompt of gsm8k": 1}
    assert manifest["decontaminate"]["eval_sets"] == {"gsm8k": 2}
    found = json.loads((out / "contamination" / "sft.json").read_text())
    [match] = found["matches"]
    assert (match["source"], match["row"], match["eval_set"], match["eval_row"]) == (
        "two", 20, "gsm8k", 0,
    )  # fmt: skip
    assert match["overlap"] == 1.0
    rate = next(r for r in found["rates"] if r["source"] == "two")
    assert rate["eval_share"] == 0.5 and rate["contaminated"]


def test_the_guard_can_be_turned_off_or_given_files(project: Project) -> None:
    with_evaluation(project)
    project.recipe["decontaminate"] = False
    assert project.manifest(project.build("off"))["rows"] == 50
    del project.recipe["eval"]
    project.recipe["decontaminate"] = {"against": [str(project.folder / "test.jsonl")]}
    assert project.manifest(project.build("file"))["rows"] == 49


def test_stats_write_nothing(project: Project) -> None:
    before = sorted(p.name for p in project.folder.iterdir())
    found = stats_data(project.path)
    after = {p.name for p in project.folder.iterdir()} - {"cache", "recipe.yaml"}
    assert after == set(before) - {"cache", "recipe.yaml"}
    assert found["sft"]["sources"][0]["rows_tokenized"] == 30


def test_a_folder_that_is_not_empty_is_not_written_over(project: Project) -> None:
    out = project.folder / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        project.build()
    assert (out / "mine.txt").read_text() == "mine"


def test_show_marks_what_is_trained(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    show_data(project.path)
    shown = capsys.readouterr().out
    assert "sft: one: 30 of 30 rows" in shown and "% trained" in shown
    assert shown.count("⟦") == 6 and "</s>⟧" in shown
