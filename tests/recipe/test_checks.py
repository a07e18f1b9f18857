from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("kind", "body", "fault"),
    [
        (
            "sft",
            "datasets: [a]\nwarmup_ratio: 0.1\nwarmup_steps: 3",
            "line 7: stages[0].sft.warmup_steps: contradicts `warmup_ratio`; remove one of them",
        ),
        (
            "sft",
            "datasets: [a]\nnum_train_epochs: 1\nmax_steps: 3",
            "line 7: stages[0].sft.max_steps: contradicts `num_train_epochs`; remove one of them",
        ),
        (
            "rlvr",
            "datasets: [a]\npacking: true",
            "line 6: stages[0].rlvr.packing: completions have no length before they are sampled;"
            " remove it, and set `max_tokens_per_device`, which packs them step by step",
        ),
        (
            "sft",
            "datasets: [a]\nmax_tokens_per_device: 8192\nper_device_train_batch_size: 8",
            "line 7: stages[0].sft.per_device_train_batch_size: contradicts"
            " `max_tokens_per_device`; remove one of them",
        ),
        (
            "dpo",
            "datasets: [a]\nmax_length: 4096\nmax_tokens_per_device: 2048",
            "line 7: stages[0].dpo.max_tokens_per_device: got 2048, and a sequence may have"
            " max_length = 4096 tokens; give at least 4096",
        ),
        (
            "rlvr",
            "datasets: [a]\nmax_prompt_length: 300\nmax_completion_length: 200\n"
            "max_tokens_per_device: 499",
            "line 8: stages[0].rlvr.max_tokens_per_device: got 499, and a sequence may have"
            " max_prompt_length + max_completion_length = 500 tokens; give at least 500",
        ),
        (
            "sft",
            "datasets: [a]\nload_in_4bit: true",
            "line 6: stages[0].sft.load_in_4bit: 4-bit weights cannot be trained themselves;"
            " set `use_peft: true`",
        ),
        (
            "sft",
            "datasets: [a]\nbatch_size: 100\nper_device_train_batch_size: 8\n"
            "gradient_accumulation_steps: 4",
            "line 6: stages[0].sft.batch_size: got 100, not a multiple of"
            " per_device_train_batch_size (8) x gradient_accumulation_steps (4);"
            " nearest: 96 or 128",
        ),
        (
            "sft",
            "datasets: [a]\nper_device_train_batch_size: 48",
            "line 4: stages[0].sft.batch_size: is 32 by default, not a multiple of"
            " per_device_train_batch_size (48); nearest: 48",
        ),
        (
            "rlvr",
            "datasets: [a]\nbatch_size: 100\nnum_generations: 16\nnum_mini_batches: 2",
            "line 6: stages[0].rlvr.batch_size: got 100, not a multiple of"
            " num_generations (16) x num_mini_batches (2); nearest: 96 or 128",
        ),
        (
            "sft",
            "datasets:\n  - {path: a, weight: 1}",
            "line 6: stages[0].sft.datasets[0].weight: is a share of a token budget;"
            " set `token_budget` in stages[0].sft",
        ),
        (
            "sft",
            "token_budget: 9\ndatasets:\n  - {path: a, weight: 1}\n  - b",
            "line 8: stages[0].sft.datasets[1].weight: is missing, while other sources have one;"
            " give every source a weight or none",
        ),
        (
            "sft",
            "token_budget: 9\ndatasets: [a]",
            "line 5: stages[0].sft.token_budget: is shared by weights,"
            " and no source has a `weight`; give each",
        ),
        (
            "sft",
            "datasets:\n  - path: a\n    fraction: 0.5\n    repeat: 2",
            "line 8: stages[0].sft.datasets[0].repeat: contradicts `fraction`; keep one of them",
        ),
        (
            "sft",
            "datasets:\n  - {path: a, verifier: gsm8k}",
            "line 6: stages[0].sft.datasets[0].verifier: only rlvr stages have verifiers;"
            " remove it",
        ),
        (
            "sft",
            "datasets: []",
            "line 5: stages[0].sft.datasets: is empty;"
            " give at least one source, as `- {path: ...}`",
        ),
        (
            "dpo",
            "datasets: [a]\nbeta: 0.1\nloss: {name: dpo, beta: 5}",
            "line 6: stages[0].dpo.beta: got 0.1, but `loss.beta` is 5; remove one of them",
        ),
        (
            "dpo",
            "datasets: [a]\nref_model_name_or_path: dpo",
            "line 6: stages[0].dpo.ref_model_name_or_path: `dpo` is this stage itself",
        ),
        (
            "sft",
            "datasets: [a]\nref_model_name_or_path: base",
            "line 6: stages[0].sft.ref_model_name_or_path: `ref_model_name_or_path` is not a key of"
            " sft stages but of dpo; remove it, or move it to such a stage",
        ),
        (
            "rlvr",
            "datasets: [a]\nreward_weights: [1, 2]",
            "line 6: stages[0].rlvr.reward_weights: got 2 for 0 of `reward_funcs`; give one for"
            " each",
        ),
        (
            "rlvr",
            "datasets: [a]\nreward_funcs: gsm8k",
            "line 6: stages[0].rlvr.reward_funcs: got 'gsm8k'; must be a list of text;"
            " write [...], or one `- ` line per entry",
        ),
        (
            "sft",
            "datasets: [a]\nmax_skipped_steps: 0",
            "line 6: stages[0].sft.max_skipped_steps: got 0; must be a whole number at least 1",
        ),
        (
            "sft",
            "datasets: [a]\nname: base",
            "line 6: stages[0].sft.name: got 'base'; a stage's name must be letters, digits,"
            " - _ or +, and not `base`, which is the model before the first stage",
        ),
        (
            "sft",
            "datasets: [a]\nname: a.b",
            "line 6: stages[0].sft.name: got 'a.b'; a stage's name must be letters, digits,"
            " - _ or +, and not `base`, which is the model before the first stage",
        ),
    ],
)
def test_contradictions_inside_a_stage(stage_faults, kind, body, fault):
    assert stage_faults(kind, body) == [fault]


@pytest.mark.parametrize(
    "body",
    [
        "{datasets: [a], warmup_ratio: 0.0, warmup_steps: 3}",
        "{datasets: [a], max_steps: 3}",
        "{datasets: [a], packing: true, max_length: 512, max_tokens_per_device: 512}",
        "{datasets: [a], load_in_4bit: true, use_peft: true}",
        "{datasets: [a], batch_size: 64, per_device_train_batch_size: 8}",
        "{token_budget: 9, datasets: [{path: a, weight: 1}, {path: b, weight: 2}]}",
        "{datasets: [{path: a, fraction: 0.5, repeat: null}]}",
    ],
)
def test_what_does_not_contradict(load, body):
    load(f"name: t\nmodel_name_or_path: m\nstages: [{{sft: {body}}}]\n")


def test_a_wrong_value_brings_no_second_fault(stage_faults):
    found = stage_faults(
        "rlvr", "datasets: [a]\nbatch_size: many\nnum_generations: 48\nbeta: 0.1\nloss: {beta: 2}"
    )
    assert found == [
        "line 6: stages[0].rlvr.batch_size: got 'many'; must be a whole number at least 1"
    ]


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a\\b", "-x", ".hidden", "a.", "a\tb"])
def test_names_that_are_no_folder(faults, name):
    found = faults(
        f"name: {name!r}\nmodel_name_or_path: m\nstages: [{{sft: {{datasets: [a]}}}}]\n".replace(
            "\\\\", "\\"
        )
    )
    assert len(found) == 1
    assert found[0].startswith("line 1: name: got ")
    assert "it names the folder runs/<name>/" in found[0]


@pytest.mark.parametrize("name", ["tulu3-8b", "Tülu 3.1", "a"])
def test_names_that_are_one(load, name):
    text = f"name: {name}\nmodel_name_or_path: m\nstages: [{{sft: {{datasets: [a]}}}}]\n"
    assert load(text).name == name


def test_empty_stages(faults):
    assert faults("name: t\nmodel_name_or_path: m\nstages: []\n") == [
        "line 3: stages: is empty; give at least one stage, as `- sft: {datasets: [...]}`"
    ]


def test_duplicate_names(faults):
    found = faults(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n  - dpo: {datasets: [a], name: sft}\n"
    )
    assert found == [
        "line 5: stages[1].dpo.name: `sft` already names stages[0].sft;"
        " set `name:` to tell them apart"
    ]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("rlvr", "`rlvr` is a later stage; may be: base, sft"),
        ("dpo", "`dpo` is this stage itself; may be: base, sft"),
        ("rm", "`rm` is a reward model, not a policy; may be: base, sft"),
        ("sfft", "there is no stage `sfft`; may be: base, sft"),
    ],
)
def test_where_a_stage_may_not_start(faults, start, message):
    found = faults(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n"
        "  - reward: {name: rm, datasets: [a]}\n"
        f"  - dpo: {{datasets: [a], start: {start}}}\n"
        "  - rlvr: {datasets: [a]}\n"
    )
    assert found == [f"line 6: stages[2].dpo.start: {message}"]


def test_where_a_stage_may_start(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n  - dpo: {datasets: [a], start: base}\n"
        "  - rlvr: {datasets: [a], start: sft}\n"
    )
    assert [stage.start for stage in recipe.stages] == [None, "base", "sft"]


def test_pretrain_stands_first_and_alone(faults):
    pretrain = "pretrain: {datasets: [a], model: {model_type: llama}}"
    assert faults(f"name: t\nmodel_name_or_path: m\nstages:\n  - {pretrain}\n") == [
        "line 2: model_name_or_path: contradicts the `pretrain` stage, which builds the model;"
        " remove one of them"
    ]
    assert faults(f"name: t\nstages:\n  - sft: {{datasets: [a]}}\n  - {pretrain}\n") == [
        "line 4: stages[1].pretrain: `pretrain` builds a model from nothing; move it first"
    ]
    found = faults(
        "name: t\nstages:\n  - pretrain: {datasets: [a], model: {hidden_size: 8}, start: base}\n"
        "  - sft: {datasets: [a], start: base}\n"
    )
    assert found == [
        "line 3: stages[0].pretrain.start: a `pretrain` stage starts from nothing; remove `start`",
        "line 3: stages[0].pretrain.model: needs `model_type`,"
        " as `model: {model_type: llama, ...}`",
        "line 4: stages[1].sft.start: there is no base model without `model_name_or_path`;"
        " may be: pretrain",
    ]


def test_a_model_is_needed(faults):
    assert faults("name: t\nstages:\n  - sft: {datasets: [a]}\n") == [
        "line 1: model_name_or_path: is missing; give the hub id or folder of the base model,"
        " or make the first stage `pretrain`"
    ]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("dpo: {ref_model_name_or_path: rm", "`rm` is a reward model, which has no log-probs"),
        ("dpo: {ref_model_name_or_path: rlvr", "`rlvr` is a later stage; move it up"),
        ("rlvr: {reward_funcs: [rm, sft]", "`sft` is a policy; name a reward stage"),
        ("rlvr: {reward_funcs: [rm, base]", "`base` is a policy; name a reward stage"),
        ("rlvr: {reward_funcs: [gsm8k, rlvr]", "`rlvr` is a later stage; move it up"),
    ],
)
def test_other_models_that_do_not_fit(faults, stage, fault):
    found = faults(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n"
        "  - reward: {name: rm, datasets: [a]}\n"
        f"  - {stage}, name: x, datasets: [a]}}\n"
        "  - rlvr: {datasets: [a]}\n"
    )
    key = ".ref_model_name_or_path" if stage.startswith("dpo") else ".reward_funcs[1]"
    assert found == [f"line 6: stages[2].{stage.split(':')[0]}{key}: {fault}"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sft", "`sft` is a policy; name a reward stage, or `policy` for the model that this stage"
         " starts from"),
        ("base", "`base` is a policy; name a reward stage, or `policy` for the model that this"
         " stage starts from"),
        ("x", "`x` is this stage itself"),
    ],
)  # fmt: skip
def test_value_models_that_do_not_fit(faults, name, fault):
    found = faults(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n"
        f"  - rlvr: {{value_model: {name}, advantage: gae, name: x, datasets: [a]}}\n"
    )
    assert found == [f"line 5: stages[1].rlvr.value_model: {fault}"]


@pytest.mark.parametrize("name", ["policy", "random", "rm", "org/rm"])
def test_value_models_that_fit(load, name):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - reward: {name: rm, datasets: [a]}\n"
        f"  - rlvr: {{value_model: {name}, advantage: gae, kl_coef: 0.1, datasets: [a]}}\n"
    )
    assert recipe.stages[1].value_model == name
    assert recipe.stages[1].beta == 0.1


def test_other_models_that_fit(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n  - dpo: {datasets: [a], ref_model_name_or_path: base}\n"
        "  - reward: {name: rm, datasets: [a]}\n"
        "  - rlvr:\n      datasets: [a]\n"
        "      reward_funcs: [rm, gsm8k, org/rm]\n      reward_weights: [1, 2, 0.5]\n"
    )
    assert recipe.stages[1].ref_model_name_or_path == "base"
    assert recipe.stages[3].reward_funcs == ("rm", "gsm8k", "org/rm")
    assert recipe.stages[3].reward_weights == (1.0, 2.0, 0.5)


def test_a_base_that_is_built_is_no_reference(faults):
    pretrain = "pretrain: {datasets: [a], model: {model_type: llama}}"
    dpo = "dpo: {datasets: [a], ref_model_name_or_path: base}"
    assert faults(f"name: t\nstages:\n  - {pretrain}\n  - {dpo}\n") == [
        "line 4: stages[1].dpo.ref_model_name_or_path: there is no base model without"
        " `model_name_or_path`"
    ]
