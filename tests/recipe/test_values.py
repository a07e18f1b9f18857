from __future__ import annotations

import pytest

from posttrain.recipe import RLVR, Source


def sft(load, body):
    return load(f"name: t\nmodel_name_or_path: m\nstages: [{{sft: {{datasets: [a], {body}}}}}]\n")


@pytest.mark.parametrize(
    ("written", "value"),
    [("5e-6", 5e-6), ("5.0e-6", 5e-6), ("1", 1.0), ("1E-2", 0.01), ("'0.5'", 0.5)],
)
def test_numbers(load, written, value):
    got = sft(load, f"learning_rate: {written}").stages[0].learning_rate
    assert got == value
    assert type(got) is float


@pytest.mark.parametrize(("written", "value"), [("64", 64), ("64.0", 64), ("1e2", 100)])
def test_whole_numbers(load, written, value):
    got = sft(load, f"batch_size: {written}").stages[0].batch_size
    assert got == value
    assert type(got) is int


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("batch_size: 1.5", "batch_size: got 1.5; must be a whole number at least 1"),
        ("batch_size: 0", "batch_size: got 0; must be a whole number at least 1"),
        ("batch_size: true", "batch_size: got true; must be a whole number at least 1"),
        ("batch_size: '8 rows'", "batch_size: got '8 rows'; must be a whole number at least 1"),
        ("batch_size: [8]", "batch_size: got [8]; must be a whole number at least 1"),
        ("learning_rate: -1e-5", "learning_rate: got -1e-5; must be a number above 0"),
        ("learning_rate: .nan", "learning_rate: got nan; must be a number above 0"),
        ("learning_rate: .inf", "learning_rate: got inf; must be a number above 0"),
        ("learning_rate: fast", "learning_rate: got 'fast'; must be a number above 0"),
        ("warmup_ratio: 3", "warmup_ratio: got 3; must be a number at least 0 and at most 1"),
        (
            "max_length:",
            "max_length: has no value; give a whole number at least 2,"
            " or remove the line to get the default",
        ),
        (
            "use_peft: 'true'",
            "use_peft: got 'true'; must be true or false; write true or false without quotes",
        ),
        ("use_peft: 1", "use_peft: got 1; must be true or false"),
        ("start: 7", "start: got 7; must be text; put it in quotes"),
        ("start: ''", "start: got ''; must be text; it may not be blank"),
        (
            "truncation: trunc",
            "truncation: got 'trunc'; must be one of truncate, drop, error; did you mean truncate?",
        ),
        (
            "lora_target_modules: [q_proj, 3]",
            "lora_target_modules: got ['q_proj', 3]; must be text or a list of text",
        ),
        (
            "filters: exact_dedup",
            "filters: got 'exact_dedup'; must be a list; write [...], or one `- ` line per entry",
        ),
        ("filters: [3]", "filters[0]: got 3; must be a name or {name: ..., ...}"),
    ],
)
def test_wrong_values(stage_faults, line, fault):
    found = stage_faults("sft", f"datasets: [a]\n{line}")
    line_number = 4 if "[0]" in fault else 6
    assert found == [f"line {line_number}: stages[0].sft.{fault}"]


def test_lists_become_tuples_and_text_may_look_like_a_date(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n  - sft:\n      lora_target_modules: [q, k]\n"
        "      datasets:\n        - {path: a, revision: 2024-01-01, data_files: [x, y]}\n"
    )
    stage = recipe.stages[0]
    assert stage.lora_target_modules == ("q", "k")
    assert stage.datasets == (Source(path="a", revision="2024-01-01", data_files=("x", "y")),)


def test_options_of_a_method_keep_their_types(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n  - dpo:\n      datasets: [a]\n"
        "      loss: {beta: 1e-1, label: '1e-1', none: null, list: [1, x], deep: {a: true}}\n"
    )
    assert recipe.stages[0].loss == {
        "name": "dpo", "beta": 0.1, "label": "1e-1", "none": None, "list": [1, "x"],
        "deep": {"a": True},
    }  # fmt: skip


def test_short_forms_of_methods(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\n"
        "stages: [{rlvr: {datasets: [a], loss: grpo, advantage: {scale: std}}}]\n"
    )
    assert recipe.stages[0] == RLVR(
        datasets=(Source(path="a"),),
        loss={"name": "grpo"},
        advantage={"name": "group", "scale": "std"},
    )


def test_blocks_of_the_wrong_shape(faults):
    found = faults("name: t\nmodel_name_or_path: m\nstages: {sft: {}}\neval: gsm8k\n")
    assert found == [
        "line 3: stages: got {'sft': {}}; must be a list; write [...], or one `- ` line per entry",
        "line 4: eval: got 'gsm8k'; must be a mapping of keys to values",
    ]


def test_a_source_that_is_no_mapping(stage_faults):
    assert stage_faults("sft", "datasets:\n  - a\n  - 7") == [
        "line 7: stages[0].sft.datasets[1]: got 7; must be a mapping of keys to values"
    ]


def test_required_keys(faults):
    found = faults("name: t\nmodel_name_or_path: m\nstages:\n  - sft:\n  - dpo: {datasets: [{}]}\n")
    assert found == [
        "line 4: stages[0].sft.datasets: is missing; give a list: Where the rows come from.",
        "line 5: stages[1].dpo.datasets[0].path: is missing; give text: Hub id, folder, file"
        " (.jsonl, .jsonl.gz, .json, .csv, .parquet, .arrow), or `generated:NAME`.",
    ]


def test_columns_map_text_to_text(stage_faults):
    assert stage_faults("sft", "datasets:\n  - path: a\n    columns: {prompt: 3}") == [
        "line 7: stages[0].sft.datasets[0].columns: got {'prompt': 3};"
        " must be a mapping of text to text"
    ]
