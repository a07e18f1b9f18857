"""What the user says in a row, whatever the row looks like."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.decontamination.prompts import eval_set, read_eval_file, user_turns
from posttrain.errors import DataError


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


PARTS = [{"type": "text", "text": "look"}, {"type": "image", "url": "x"}]
TREE = {
    "role": "prompter",
    "text": "q",
    "replies": [
        {"role": "assistant", "text": "a", "replies": [{"role": "prompter", "text": "q2"}]},
    ],
}
SHAPES = [
    ({"messages": [turn("system", "s"), turn("user", "q"), turn("assistant", "a")]}, ["q"]),
    ({"messages": [turn("user", "q"), turn("assistant", None), turn("user", "r")]}, ["q", "r"]),
    ({"messages": [turn("user", PARTS)]}, ["look"]),
    ({"prompt": [turn("user", "q")], "ground_truth": "1", "verifier": "gsm8k"}, ["q"]),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, ["q"]),
    ({"chosen": [turn("user", "q"), turn("assistant", "a")], "rejected": []}, ["q"]),
    ({"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: b"}, ["q", "r"]),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ["q"]),
    ({"instruction": "do", "input": "this", "output": "a"}, ["do\nthis"]),
    ({"instruction": "do", "input": "", "output": "a", "text": "all of it"}, ["do"]),
    ({"instruction": "do", "instances": [{"input": "i", "output": "a"}]}, ["do\ni"]),
    ({"text": "all", "question": "other"}, ["all"]),
    ({"Body": "b", "Question": "q", "Answer": 1}, ["b\nq"]),
    ({"problem": "p", "solution": "s"}, ["p"]),
    ({"question": "q", "passage": "p", "options": ["A", "B"]}, ["p\nq"]),
    ({"question": "q", "passage": "", "options": ["A"]}, ["q"]),
    ({"question": [[turn("user", "q")]], "function": []}, ["q"]),
    ({"query": "q", "choices": ["a", "b"]}, ["q"]),
    ({"turns": ["q", "r"], "reference": ["a"]}, ["q", "r"]),
    ({"input": "q", "target": "a"}, ["q"]),
    ({"Behavior": "b", "ContextString": "c"}, ["b\nc"]),
    ({"context_options": ["he is", "she is"], "continuation": "late"}, ["he is\nlate"]),
    ({"context": "q", "answer": "a"}, ["q"]),
    ({"prompt": TREE}, ["q", "q2"]),
    ({"prompt": None, "question": "q"}, ["q"]),
    ({"prompt": [], "question": "q"}, ["q"]),
    ({"messages": [turn("assistant", "a")]}, []),
    ({"text": "t", "source": "prompt"}, ["t"]),
]


@pytest.mark.parametrize(("row", "turns"), SHAPES, ids=lambda value: ",".join(value)[:40])
def test_shapes(row: dict[str, Any], turns: list[str]) -> None:
    assert user_turns(row) == turns


def test_other_fields() -> None:
    row = {"messages": [turn("user", "q"), turn("assistant", "a")], "note": "n", "source": "s"}
    assert user_turns(row, "all") == ["q", "a", "n"]
    assert user_turns(row, ["note", "messages"]) == ["n", "q", "a"]
    assert user_turns(row, "note") == ["n"]
    with pytest.raises(DataError, match="no field 'notes'; it has messages, note, source"):
        user_turns(row, ["notes"])


@pytest.mark.parametrize("row", [{"id": 1, "ground_truth": []}, {"prompt": 5}, {}])
def test_a_row_without_a_prompt_says_how_to_name_it(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="name its fields with `fields`"):
        user_turns(row)


def test_a_file_keeps_its_name_and_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"turns": ["a", "b"]}\n\n{"prompt": "c\\ud800"}'))
    found = read_eval_file(path)
    assert found.name == str(path)
    assert found.prompts == ["a\nb", "c\ud800"]


def test_named_fields_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps({"q": "a", "options": ["x", "y"], "prompt": "z"}))
    assert read_eval_file(path, ["q", "options"]).prompts == ["a\nx\ny"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('{"prompt": "a"}\n{"id": 1}', "e.jsonl:2: no prompt found"),
        ('{"prompt": "a"}\n\n[1]', "e.jsonl:3 must be an object, it is of type list"),
        ('{"prompt": "a"', "e.jsonl:1 is not JSON"),
        ("\n", "e.jsonl has no rows"),
        ('{"prompt": " "}', "e.jsonl has no text in any of its prompts"),
        ('{"prompt": ' + "[" * 600 + "]" * 600 + "}", "e.jsonl:1: the row is nested too deeply"),
    ],
)
def test_bad_files(tmp_path: Path, lines: str, says: str) -> None:
    (tmp_path / "e.jsonl").write_text(lines)
    with pytest.raises(DataError) as caught:
        read_eval_file(tmp_path / "e.jsonl")
    assert says in str(caught.value)


def test_rows_from_elsewhere() -> None:
    assert eval_set("task", [{"prompt": [turn("user", "q")]}]).prompts == ["q"]
    with pytest.raises(DataError, match="task: row 1: no prompt found"):
        eval_set("task", [{"prompt": "q"}, {"id": 1}])


def test_every_public_evaluation_file(data: Callable[[str], Path]) -> None:
    manifest = data("MANIFEST.jsonl")
    blank: dict[str, int] = {}
    answers = 0
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path = manifest.parent / entry["file"]
        if entry["kind"] != "eval (80%)":
            continue
        if "_answer" in path.name:  # they hold the answers to the prompts of another file
            answers += 1
            with pytest.raises(DataError, match=r"jsonl:1: no prompt found"):
                read_eval_file(path)
            continue
        prompts = read_eval_file(path).prompts
        assert len(prompts) == entry["rows"]
        if not all(prompt.strip() for prompt in prompts):
            blank[path.name] = sum(not prompt.strip() for prompt in prompts)
    assert answers == 4
    # they are blank in the files themselves
    assert blank == {"content_constraints.jsonl": 14, "rephrase_humaneval_python.jsonl": 13}
