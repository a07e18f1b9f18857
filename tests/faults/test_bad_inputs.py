"""Bad recipes, rows and models: one readable message, exit status 2, no file touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        name: what is wrong.
        says: words the message must hold: the culprit, the place, what to do.
        edit: pairs of old and new text in stack.yaml.
        files: files written before the run.
        spoil: what is done to the working folder.
        argv: further arguments.
    """

    name: str
    says: tuple[str, ...]
    edit: tuple[tuple[str, str], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    spoil: Spoil | None = None
    argv: tuple[str, ...] = ()


def edited(name: str, old: str, new: str, *says: str) -> Case:
    return Case(name, ("stack.yaml", *says), edit=((old, new),))


def row(name: str, file: str, text: str, *says: str) -> Case:
    return Case(name, (file, *says), files={file: text + "\n"})


def broken(name: str, spoil: Spoil, *says: str) -> Case:
    return Case(name, says, spoil=spoil)


def change_json(name: str, **values: object) -> Spoil:
    """Set keys of a JSON file of the model; `None` removes one."""

    def spoil(folder: Path) -> None:
        path = folder / "model" / name
        kept = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))

    return spoil


def cut(name: str, share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return spoil


def remove(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def lose_template(folder: Path) -> None:
    (folder / "model" / "chat_template.jinja").unlink()
    path = folder / "stack.yaml"
    path.write_text(path.read_text().replace("chat_template: tulu\n", ""))


def shard(folder: Path) -> None:
    """An index that names a second shard, which is not there."""
    names = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))


RATE = ("max_length: 64", "max_length: 64\n      learning_rate: ")
TURN = '{"role": "user", "content": "Hello?"}'
PROBLEM = '{"prompt": "2+2?", "ground_truth": %s, "verifier": "%s"}'

RECIPES = [
    edited("misspelt key", "max_steps: 1", "max_stps: 1", "line 9", "`max_steps`"),
    edited("wrong type", "batch_size: 2", "batch_size: many", "line 8", "many", "whole number"),
    edited("negative rate", RATE[0], RATE[1] + "-1.0e-5", "line 8", "learning_rate", "above 0"),
    edited("unknown kind", "- sft:", "- stf:", "line 5", "stf", "pretrain, sft, dpo", "mean sft"),
    edited("later stage", "- dpo:", "- dpo:\n      start: rlvr", "start", "a later stage", "base"),
    edited("indivisible", "batch_size: 4", "batch_size: 3", "num_generations (2)", "2 or 4"),
    edited("contradiction", RATE[0], "num_train_epochs: 2", "max_steps", "num_train_epochs"),
    edited("no such file", "{path: rows.jsonl}", "{path: rwos.jsonl}", "datasets[0]", "rwos.jsonl"),
    edited("no such exam", "path: exam.jsonl", "path: exams.jsonl", "eval.tasks", "exams.jsonl"),
    edited("unknown task", "name: gsm8k", "name: gsm9k", "eval.tasks", "'gsm8k'"),
    edited("unknown template", "template: tulu", "template: tolu", "chat_template", "'tulu'"),
    edited("no template file", "template: tulu", "template: my.jinja", "my.jinja", "known: chatml"),
    edited("unknown model", "path: model\n", "path: ./modle\n", "./modle", "does not exist"),
    edited("too long", RATE[0], "max_length: 65", "stages[0].sft", "65", "64 tokens", "lower"),
    edited("answers too long", "_prompt_length: 32", "_prompt_length: 61", "stages[2].rlvr", "65"),
    edited("unknown loss", "pairs.jsonl}]", "pairs.jsonl}]\n      loss: dop", ".loss", "'dpo'"),
    edited(
        "unknown verifier of a source",
        "problems.jsonl}",
        "problems.jsonl, verifier: gms8k}",
        "stages[2].rlvr.datasets[0].verifier",
        "'gsm8k'",
    ),
    edited("endless generator", "rows.jsonl", '"generated:tiny_conversations"', "num_samples"),
    Case("no recipe", ("stack.yaml", "`name`", "`stages`"), files={"stack.yaml": "colour: x\n"}),
    Case("no mapping", ("stack.yaml", "a list"), files={"stack.yaml": "- one\n- two\n"}),
    Case(
        "no YAML",
        ("stack.yaml", "line 3 is not YAML"),
        files={"stack.yaml": "name: x\nstages: [\n"},
    ),
    Case(
        "binary recipe",
        ("stack.yaml", "a posttrain recipe"),
        spoil=lambda f: (f / "stack.yaml").write_bytes(b"\xff\x00"),
    ),
    Case("unknown stage", ("`stf`", "sft, dpo, rlvr"), argv=("--stage", "stf")),
    Case("unknown first stage", ("'rlrv'", "'rlvr'"), argv=("--from_stage", "rlrv")),
    Case(
        "both stages", ("--stage", "--from_stage"), argv=("--stage", "sft", "--from_stage", "dpo")
    ),
    Case("earlier stage missing", ("dpo", "starts from stage sft"), argv=("--stage", "dpo")),
    Case("bad override", ("'fast'", "key=value"), argv=("fast",)),
    Case("unknown override", ("learning_rat", "learning_rate"), argv=("--learning_rat", "1")),
    Case("override of a missing stage", ("stages.sfd", "`sft`"), argv=("stages.sfd.seed=1",)),
    Case("unknown hardware", ("--hardware", "'gpu9'"), argv=("--hardware", "gpu9")),
]

ROWS = [
    row("empty file", "rows.jsonl", "", "stage sft", "no rows"),
    row("only blank lines", "pairs.jsonl", "\n \n", "stage dpo", "no rows"),
    row(
        "no assistant turn",
        "rows.jsonl",
        f'{{"messages": [{TURN}]}}',
        "jsonl:1: ",
        "no assistant turn",
    ),
    row("no message fields", "rows.jsonl", '{"q": "2+2?", "a": "4"}', "['a', 'q']", "`columns:"),
    row(
        "unknown role",
        "rows.jsonl",
        '{"messages": [{"role": "me", "content": ""}]}',
        "jsonl:1: ",
        "user",
    ),
    row(
        "equal pair",
        "pairs.jsonl",
        '{"prompt": "2?", "chosen": "2", "rejected": "2"}',
        "stage dpo",
        "jsonl:1: ",
        "equals",
    ),
    row(
        "no rejected side",
        "pairs.jsonl",
        '{"prompt": "2?", "chosen": "2"}',
        "stage dpo",
        "`rejected`",
    ),
    row(
        "unknown verifier of a row",
        "problems.jsonl",
        PROBLEM % ('"4"', "gsm9k"),
        "stage rlvr",
        "jsonl:1: ",
        "'gsm8k'",
    ),
    row(
        "no verifier",
        "problems.jsonl",
        '{"prompt": "2?", "ground_truth": "2"}',
        "stage rlvr",
        "`verifier`",
    ),
    row(
        "unreadable ground truth",
        "problems.jsonl",
        PROBLEM % ('"four"', "gsm8k"),
        "stage rlvr",
        "'four'",
        "a number",
    ),
    row(
        "unreadable constraint",
        "problems.jsonl",
        PROBLEM % ('"{}"', "ifeval"),
        "stage rlvr",
        "instruction_id_list",
    ),
    row(
        "unreadable exam",
        "exam.jsonl",
        '{"prompt": "3?", "ground_truth": "?"}',
        "row 1",
        "a number",
    ),
    row("not JSON", "rows.jsonl", '{"prompt": "2+2?",', "rows.jsonl:1", "mend"),
    row("not an object", "rows.jsonl", '["2+2?", "4"]', "rows.jsonl:1", "object"),
    Case(
        "wrong column",
        ("'question'", "completion, prompt"),
        edit=(("rows.jsonl}", "rows.jsonl, columns: {prompt: question}}"),),
    ),
    Case(
        "damaged gzip",
        ("rows.jsonl.gz", "damaged"),
        edit=(("rows.jsonl", "rows.jsonl.gz"),),
        files={"rows.jsonl.gz": "no gzip"},
    ),
    Case(
        "damaged parquet",
        ("rows.parquet", "cannot be read"),
        edit=(("rows.jsonl", "rows.parquet"),),
        files={"rows.parquet": "no parquet"},
    ),
    Case(
        "JSON lines in .json",
        ("rows.json", ".jsonl"),
        edit=(("rows.jsonl", "rows.json"),),
        files={"rows.json": "{}\n{}\n"},
    ),
    Case(
        "numbers in .json",
        ("rows.json", "row 1 must be an object"),
        edit=(("rows.jsonl", "rows.json"),),
        files={"rows.json": "[1, 2]"},
    ),
    Case(
        "unknown ending",
        ("rows.xml", ".jsonl"),
        edit=(("rows.jsonl", "./rows.xml"),),
        files={"rows.xml": "<row/>"},
    ),
    Case(
        "empty folder",
        ("./empty", "no data files"),
        edit=(("rows.jsonl", "./empty"),),
        spoil=lambda f: (f / "empty").mkdir(),
    ),
    Case(
        "all prompts too long", ("stage rlvr", "max_prompt_length 4"), argv=("max_prompt_length=4",)
    ),
    Case(
        "rows too long",
        ("stage sft", "max_length 4", "truncation"),
        argv=("stages.sft.max_length=4", "stages.sft.truncation=error"),
    ),
    Case(
        "hub without network", ("nobody/nothing", "hub"), edit=(("rows.jsonl", "nobody/nothing"),)
    ),
]

MODELS = [
    broken(
        "no weights", remove("model/model.safetensors"), "'model'", "no weights", "*.safetensors"
    ),
    broken("no config", remove("model/config.json"), "'model'", "config.json"),
    broken(
        "no tokenizer",
        remove("model/tokenizer.json", "model/tokenizer_config.json"),
        "tokenizer",
        "'model'",
    ),
    broken(
        "cut weights", cut("model/model.safetensors", 0.9), "model.safetensors", "corrupt", "again"
    ),
    broken(
        "weights of zero bytes", cut("model/model.safetensors", 0), "model.safetensors", "corrupt"
    ),
    broken("cut tokenizer", cut("model/tokenizer.json", 0.5), "tokenizer", "'model'"),
    broken("cut config", cut("model/config.json", 0.5), "'model'", "configuration"),
    broken("missing shard", shard, "model-00002-of-00002.safetensors", "missing"),
    broken(
        "damaged index",
        lambda f: (f / "model/model.safetensors.index.json").write_text("{"),
        "index.json",
        "corrupt",
    ),
    broken(
        "unknown architecture", change_json("config.json", model_type="camel"), "'model'", "camel"
    ),
    broken(
        "no EOS", change_json("tokenizer_config.json", eos_token=None), "no EOS token", "eos_token"
    ),
    broken("no template", lose_template, "no chat template", "chat_template:", "tulu"),
    Case(
        "hub model without network",
        ("nobody/nothing",),
        edit=(("path: model\n", "path: nobody/nothing\n"),),
    ),
]


def prepare(folder: Path, case: Case) -> None:
    recipe = folder / "stack.yaml"
    for old, new in case.edit:
        assert old in recipe.read_text()
        recipe.write_text(recipe.read_text().replace(old, new, 1))
    for name, text in case.files.items():
        (folder / name).write_text(text)
    if case.spoil:
        case.spoil(folder)


@pytest.mark.parametrize("case", [*RECIPES, *ROWS, *MODELS], ids=lambda case: case.name)
def test_bad_input(case: Case, stack: Path, refused: Callable[..., str]) -> None:
    prepare(stack, case)
    later = any(stage in case.says for stage in ("stage dpo", "stage rlvr"))
    may_add = "runs/stack/" if later else ""  # the data of stage sft, kept for the next try
    message = refused(stack, "run", "stack.yaml", *case.argv, may_add=may_add)
    for words in case.says:
        assert words in message
    assert (stack / "runs" / "stack").exists() == later
    assert not [*stack.glob("runs/stack/*/model"), *stack.glob("runs/stack/*/checkpoint-*")]
    told = message[message.index("posttrain: ") :]
    assert len(told) < 1200 and told.count("\n") < 12


def test_the_unspoilt_stack_is_fine(stack: Path, call: Callable[..., int]) -> None:
    assert call("check", "stack.yaml") == 0


def test_a_mended_stack_goes_on(stack: Path, call: Callable[..., int]) -> None:
    good = (stack / "problems.jsonl").read_text()
    (stack / "problems.jsonl").write_text(PROBLEM % ('"four"', "gsm8k"))
    assert call("run", "stack.yaml") == 2
    (stack / "problems.jsonl").write_text(good)
    assert call("run", "stack.yaml", "stages.sft.learning_rate=2e-5") == 0
    report = json.loads((stack / "runs/stack/report.json").read_text())
    assert [stage["status"] for stage in report["stages"]] == ["done"] * 3


def test_all_faults_at_once(stack: Path, refused: Callable[..., str]) -> None:
    edits = (
        ("{path: rows.jsonl}", "{path: absent.jsonl}"),
        ("{path: pairs.jsonl}]", "{path: pairs.jsonl}]\n      loss: dop"),
        ("max_length: 64", "max_length: 128"),
        ("name: gsm8k", "name: gsm9k"),
    )
    prepare(stack, Case("", (), edit=edits))
    message = refused(stack, "check", "stack.yaml")
    assert "4 faults" in message
    for path in ("stages[0].sft.datasets[0].path", "stages[1].dpo.loss", "stages[0].sft", "eval."):
        assert path in message


def test_an_indivisible_batch_over_two_processes(
    stack: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refused(stack, "run", "stack.yaml", "stages.sft.batch_size=5")
    assert "stages.sft.batch_size: 5" in message and "2 process(es)" in message
    assert "4, 6" in message


def test_a_missing_recipe(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "stack.yaml").write_text("")
    message = refused(tmp_path, "run", str(tmp_path / "stak.yaml"))
    assert "stak.yaml" in message and "stack.yaml?" in message


def test_weights_that_the_config_promises_and_nobody_has(
    stack: Path, capsys: pytest.CaptureFixture[str], call: Callable[..., int]
) -> None:
    change_json("config.json", num_hidden_layers=3)(stack)
    assert call("run", "stack.yaml") == 2
    assert "lack" in (message := capsys.readouterr().err) and "model.layers.2" in message


@pytest.mark.parametrize("name", ["misspelt key", "no assistant turn", "cut weights"])
def test_bad_input_from_a_shell(name: str, stack: Path) -> None:
    [case] = [case for case in (*RECIPES, *ROWS, *MODELS) if case.name == name]
    prepare(stack, case)
    before = sorted(path for path in stack.rglob("*") if path.is_file())
    command = [sys.executable, "-m", "posttrain", "stack.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and all(words in done.stderr for words in case.says)
    assert sorted(path for path in stack.rglob("*") if path.is_file()) == before
