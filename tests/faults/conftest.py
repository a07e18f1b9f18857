"""A small stack that works, for the tests to spoil in one place at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from posttrain import cli
from posttrain.scratch import new_model, new_tokenizer

RECIPE = """\
name: stack
model_name_or_path: model
chat_template: tulu
stages:
  - sft:
      datasets: [{path: rows.jsonl}]
      max_length: 64
      batch_size: 2
      max_steps: 1
  - dpo:
      datasets: [{path: pairs.jsonl}]
      max_length: 64
      batch_size: 2
      max_steps: 1
  - rlvr:
      datasets: [{path: problems.jsonl}]
      max_prompt_length: 32
      max_completion_length: 4
      num_generations: 2
      batch_size: 4
      max_steps: 1
eval: [{name: gsm8k, path: exam.jsonl}]
"""

ROWS = {
    "rows.jsonl": [
        {"prompt": "How much is 2+2?", "completion": "4"},
        {"prompt": "How much is 2+3?", "completion": "5"},
    ],
    "pairs.jsonl": [
        {"prompt": "How much is 2+2?", "chosen": "4", "rejected": "22"},
        {"prompt": "How much is 2+3?", "chosen": "5", "rejected": "23"},
    ],
    "problems.jsonl": [
        {"prompt": "How much is 2+2?", "ground_truth": "4", "verifier": "gsm8k"},
        {"prompt": "How much is 2+3?", "ground_truth": "5", "verifier": "gsm8k"},
    ],
    "exam.jsonl": [{"prompt": "How much is 3+3?", "ground_truth": "6"}],
}
SPEC = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_stack(folder: Path, model: Path) -> None:
    """The recipe, its files and its model, all in one folder."""
    (folder / "stack.yaml").write_text(RECIPE, encoding="utf-8")
    for name, rows in ROWS.items():
        write_rows(folder / name, rows)
    shutil.copytree(model, folder / "model")


def snapshot(folder: Path) -> Mapping[str, str]:
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_cli(*arguments: str) -> int:
    """Run the command line in this process and return its exit status."""
    with pytest.raises(SystemExit) as ending:
        cli.main([*arguments])
    return int(ending.value.code or 0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of twenty thousand weights with a tokenizer and a template."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    texts = [str(value) for rows in ROWS.values() for row in rows for value in row.values()]
    new_model(SPEC, new_tokenizer(texts, 300, "tulu"), folder, 0)
    return folder


@pytest.fixture
def stack(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the stack that works in it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_stack(tmp_path, checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The working folder of a run whose first stage is done."""
    folder = tmp_path_factory.mktemp("finished")
    write_stack(folder, checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(folder)
        assert run_cli("run", "stack.yaml", "--stage", "sft") == 0
    return folder


@pytest.fixture
def call() -> Callable[..., int]:
    """The command line in this process; its exit status."""
    return run_cli


@pytest.fixture
def begun(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished folder, to be spoilt."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call, expect a refusal that changes no file, and return its message.

    New files may only stand below `may_add`, as when the data of an earlier stage is built.
    """

    def _refused(folder: Path, *arguments: str, may_add: str = "") -> str:
        before = snapshot(folder)
        capsys.readouterr()
        assert run_cli(*arguments) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        after = snapshot(folder)
        assert before.items() <= after.items()
        new = after.keys() - before.keys()
        assert new <= {name for name in new if may_add and name.startswith(may_add)}
        return message

    return _refused
