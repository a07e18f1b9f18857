from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("sft", "learning_rte: 1", "not a key of sft stages; did you mean `learning_rate`?"),
        ("sft", "cutof_len: 1", "not a key of sft stages; did you mean `max_length`?"),
        (
            "dpo",
            "loss_reduction: sum",
            "not a key of dpo stages but of sft and rlvr; remove it, or move it to such a stage",
        ),
        (
            "sft",
            "chat_template: tulu",
            "not a key of sft stages but of the recipe; move it to the top level",
        ),
        ("sft", "zzz: 1", "not a key of sft stages; docs/recipes.md lists them all"),
    ],
)
def test_unknown_keys_of_a_stage(stage_faults, kind, line, message):
    key = line.partition(":")[0]
    assert stage_faults(kind, f"datasets: [a]\n{line}") == [
        f"line 6: stages[0].{kind}.{key}: `{key}` is {message}"
    ]


def test_unknown_keys_elsewhere(faults):
    found = faults(
        "name: t\nmodel_name_or_path: m\nlearning_rate: 1\nzzz: 1\n"
        "stages:\n  - sft:\n      datasets:\n        - path: a\n          revison: b\n"
        "eval:\n  zzz: 1\n  tasks:\n    - {name: a, colums: {}}\n"
    )
    assert found == [
        "line 3: learning_rate: `learning_rate` is not a key of a recipe but of a stage;"
        " move it into `stages: [{sft: {...}}]`",
        "line 4: zzz: `zzz` is not a key of a recipe; its keys are name, model_name_or_path,"
        " model_revision, tokenizer_name_or_path, chat_template, seed, dtype, trust_remote_code,"
        " report_to, decontaminate, stages, eval",
        "line 9: stages[0].sft.datasets[0].revison: `revison` is not a key of a source;"
        " did you mean `revision`?",
        "line 11: eval.zzz: `zzz` is not a key of `eval`;"
        " its keys are tasks, suite, batch_size, max_new_tokens",
        "line 13: eval.tasks[0].colums: `colums` is not a key of a task; did you mean `columns`?",
    ]


@pytest.mark.parametrize(
    ("entry", "place", "message"),
    [
        ("ppo: {}", ".ppo", "`ppo` is no kind of stage; the kinds are {}; did you mean dpo?"),
        ("merge: {}", ".merge", "`merge` is no kind of stage; the kinds are {}"),
        ("sft", "", "got 'sft'; a stage is one mapping {{kind: {{...}}}}, its kind among {}"),
        (
            "{sft: , learning_rate: 1, seed: 3}",
            "",
            "got the keys sft, learning_rate, seed; a stage is one mapping {{kind: {{...}}}},"
            " its kind among {}; indent learning_rate, seed under `sft:`",
        ),
    ],
)
def test_what_is_no_stage(faults, entry, place, message):
    found = faults(
        f"name: t\nmodel_name_or_path: m\nstages:\n  - sft: {{datasets: [a]}}\n  - {entry}\n"
    )
    expected = message.format("pretrain, sft, dpo, reward, rlvr")
    assert found == [f"line 5: stages[1]{place}: {expected}"]
