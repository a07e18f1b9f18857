"""The commands, and how they end: 0 when the work is done, 2 with one message, 130 interrupted."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from posttrain import cli
from posttrain.errors import DataError
from posttrain.evals.score import score_file

RIGHT = {"id": 7, "response": "6 * 7 = 42. So the answer is 42.", "ground_truth": "42"}
WRONG = {"id": 8, "response": "The answer is 41.", "ground_truth": "42"}


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ending:
        cli.main([str(argument) for argument in arguments])
    return int(ending.value.code or 0)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_help_and_version_load_no_torch() -> None:
    program = (
        "import sys\nfrom posttrain.cli import main\n"
        "try: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    for arguments in (
        ["--help"],
        ["run", "--help"],
        ["eval", "--help"],
        ["data", "build", "--help"],
        ["--version"],
    ):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("False\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == "posttrain 0.1.0\n"


def test_eval_help_names_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("eval", "--help") == 0
    assert "gsm8k, ifeval" in capsys.readouterr().out


def test_eval_prints_its_scores_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model")
    command = [sys.executable, "-m", "posttrain", "eval", str(tmp_path / "model"), "--json"]
    command += ["--tasks", "tiny", "--num_samples", "3", "--max-new-tokens", "4"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["tiny"]["n"] == 3
    assert 0 <= scores["tiny"]["score"] <= 1 and scores["tiny"]["stderr"] >= 0
    assert "tiny: " in done.stderr


def test_eval_against_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against itself every implicit reward is 0: a tie, which counts half."""
    save_checkpoint(tmp_path / "model")
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "No, not at all"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    model, tasks = str(tmp_path / "model"), f"pairs={tmp_path / 'pairs.jsonl'}"
    assert call("eval", model, "--tasks", tasks, "--json", "--reference", model) == 0
    assert json.loads(capsys.readouterr().out)["pairs"]["score"] == 0.5
    assert call("eval", model, "--tasks", tasks, "--json", "--length_normalise") == 0
    assert json.loads(capsys.readouterr().out)["pairs"]["score"] in (0, 1)


def save_checkpoint(folder: Path) -> None:
    """A random Llama of 20 thousand weights that speaks bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*alphabet, "<|eos|>", "<|pad|>"])}
    bytewise = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, eos_token="<|eos|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=256,
        eos_token_id=256,
        pad_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "--learning_rate", "1e-5", "stack.yaml"],
        ["eval", "model"],
        ["eval", "model", "--tasks", "gsm8k", "--num_samples", "0"],
        ["score", "rows.jsonl"],
        ["data", "build", "stack.yaml"],
    ],
)
def test_a_wrong_call_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["check"], ["data", "show"], []])
def test_a_missing_recipe_ends_with_its_name_and_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*command, tmp_path / "absent.yaml") == 2
    assert "absent.yaml" in capsys.readouterr().err


def test_python_m_posttrain_is_run(tmp_path: Path) -> None:
    for command in (["absent.yaml"], ["run", "absent.yaml"]):
        full = [sys.executable, "-m", "posttrain", *command]
        done = subprocess.run(full, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert "absent.yaml" in done.stderr and "Traceback" not in done.stderr


def test_score_adds_score_and_reason_and_keeps_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(
        tmp_path / "rows.jsonl",
        RIGHT | {"verifier": "gsm8k"},
        WRONG | {"dataset": "gsm8k"},
        {"response": "blue", "ground_truth": "blue", "verifier": "string_match"},
    )
    out = tmp_path / "new" / "scored.jsonl"
    assert call("score", rows, "--out", out) == 0
    scored = read(out)
    assert [row["score"] for row in scored] == [1.0, 0.0, 1.0]
    assert all(row["reason"] and isinstance(row["reason"], str) for row in scored)
    assert scored[0]["id"] == 7 and scored[1]["response"] == WRONG["response"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 rows, mean score 0.6667" in captured.err


def test_score_takes_a_verifier_for_all_rows_and_compressed_files(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl.gz"
    with gzip.open(rows, "wt") as file:
        file.write(json.dumps(RIGHT | {"verifier": "string_match"}) + "\n\n" + json.dumps(WRONG))
    out = tmp_path / "scored.jsonl.gz"
    assert call("score", rows, "--verifier", "gsm8k", "--out", out) == 0
    with gzip.open(out, "rt") as file:
        assert [json.loads(line)["score"] for line in file] == [1.0, 0.0]


def test_score_may_replace_its_own_input(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", RIGHT, WRONG)
    assert score_file(rows, rows, verifier="gsm8k") == (2, 0.5)
    assert [row["score"] for row in read(rows)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"response": ' + "9" * 5000 + "}", "line 2: not JSON"),
        ('{"response": "4", "response": "5"}', "line 2: has the key 'response' twice"),
        ('["a", "list"]', "line 2: a row is a JSON object"),
        ('{"response": "4"}', "line 2: no `ground_truth`"),
        ('{"response": 4, "ground_truth": "4"}', "line 2: `response` must be text, got 4"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps(RIGHT)}\n{line}\n")
    out = write(tmp_path / "scored.jsonl", {"kept": True})
    assert call("score", rows, "--verifier", "gsm8k", "--out", out) == 2
    assert message in capsys.readouterr().err
    assert read(out) == [{"kept": True}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "scored.jsonl"]


def test_a_row_without_a_known_verifier_is_named(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", RIGHT)
    with pytest.raises(DataError, match="line 1: no `verifier`"):
        score_file(rows, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match=r"line 1: .*gsm9k"):
        score_file(rows, tmp_path / "out.jsonl", verifier="gsm9k")


def test_files_that_are_no_rows(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match=r"absent\.jsonl does not exist"):
        score_file(tmp_path / "absent.jsonl", out)
    with pytest.raises(DataError, match="is a folder"):
        score_file(tmp_path, out)
    with pytest.raises(DataError, match="holds no rows"):
        score_file(write(tmp_path / "empty.jsonl"), out)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:-9])
    for name in ("bytes.jsonl", "cut.jsonl.gz"):
        with pytest.raises(DataError, match=f"{name}"):
            score_file(tmp_path / name, out, verifier="gsm8k")
    assert not out.exists()


def test_no_space_left_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(tmp_path / "rows.jsonl", RIGHT)
    (tmp_path / "part-out.jsonl").symlink_to("/dev/full")
    assert call("score", rows, "--verifier", "gsm8k", "--out", tmp_path / "out.jsonl") == 2
    assert "posttrain: no space left" in capsys.readouterr().err


def test_other_failures_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cli, "app", lambda *args, **kwargs: broken())
    with pytest.raises(OSError, match="Input/output"):
        cli.main(["run"])


def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    os.mkfifo(rows)
    command = [sys.executable, "-m", "posttrain", "score", str(rows), "--out", str(out)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job ignores it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        wait_for(tmp_path / "part-out.jsonl")  # it now waits for a row
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert "Traceback" not in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_later_rank_speaks_only_if_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "posttrain", "score", "absent.jsonl", "--out", "out.jsonl"]
    environment = os.environ | {"RANK": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(cli.GRACE_SECONDS / 5)
        process.terminate()  # as a launcher does when the first rank has ended
        assert "absent.jsonl does not exist" not in process.stderr.read()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "GRACE_SECONDS", 0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert call("score", tmp_path / "absent.jsonl", "--out", tmp_path / "out.jsonl") == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "posttrain: [rank 1] " in capsys.readouterr().err
