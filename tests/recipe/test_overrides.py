from __future__ import annotations

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe import Source, Task, parse_override_args

ONE = "name: t\nmodel_name_or_path: m\nstages:\n  - sft: {datasets: [a], num_train_epochs: 2}\n"
TWO = """\
name: t
model_name_or_path: m
stages:
  - sft: {datasets: [a, b], batch_size: 16}
  - dpo: {name: pairs, datasets: [c], loss: {name: dpo, beta: 5}}
eval: [gsm8k]
"""


def test_full_spellings(load):
    recipe = load(
        TWO,
        "name=x",
        "stages.sft.learning_rate=1e-5",
        "stages.sft.datasets.1.num_samples=10",
        "stages.pairs.loss.beta=1",
        "eval.max_new_tokens=64",
        "eval.tasks.0.num_samples=5",
        "stages.sft.lora_target_modules=[q, k]",
    )
    sft, dpo = recipe.stages
    assert recipe.name == "x"
    assert sft.learning_rate == 1e-5
    assert sft.datasets == (Source(path="a"), Source(path="b", num_samples=10))
    assert sft.lora_target_modules == ("q", "k")
    assert dpo.loss == {"name": "dpo", "beta": 1}
    assert recipe.eval.max_new_tokens == 64
    assert recipe.eval.tasks == (Task(name="gsm8k", num_samples=5),)


def test_what_the_file_does_not_say(load):
    recipe = load(ONE, "eval=[gsm8k]", "stages.sft.datasets=[b]", "eval.batch_size=2")
    assert recipe.stages[0].datasets == (Source(path="b"),)
    assert (recipe.eval.tasks, recipe.eval.batch_size) == ((Task(name="gsm8k"),), 2)
    assert load(TWO.replace(", loss: {name: dpo, beta: 5}", ""), "loss.beta=2").stages[1].loss == {
        "name": "dpo",
        "beta": 2,
    }


def test_short_spellings_where_one_stage_has_the_key(load):
    recipe = load(TWO, "beta=5", "loss_reduction=sum", "seed=9", "max_new_tokens=3")
    assert recipe.stages[1].beta == 5
    assert recipe.stages[0].loss_reduction == "sum"
    assert (recipe.seed, recipe.stages[0].seed) == (9, None)
    assert recipe.eval.max_new_tokens == 3


def test_the_stage_decides_a_short_spelling(load):
    recipe = load(TWO, "learning_rate=1", "batch_size=8", stage="pairs")
    assert [stage.learning_rate for stage in recipe.stages] == [1e-5, 1.0]
    assert [stage.batch_size for stage in recipe.stages] == [16, 8]


def test_ambiguous_short_spelling(faults):
    assert faults(TWO, "learning_rate=1") == [
        "learning_rate: `learning_rate` could mean more than one key; write"
        " stages.sft.learning_rate or stages.pairs.learning_rate (from the command line)"
    ]


def test_a_short_spelling_that_another_stage_has(faults):
    assert faults(TWO, "beta=1", stage="sft") == [
        "beta: `beta` is not a key of stage `sft`; write stages.pairs.beta (from the command line)"
    ]


def test_a_length_that_generation_and_evaluation_share(faults):
    text = ONE + "  - rlvr: {datasets: [a]}\n"
    [fault] = faults(text, "max_new_tokens=3")
    assert "write stages.rlvr.max_new_tokens or eval.max_new_tokens" in fault


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "stages.sft.learning_rte=1",
            "stages[0].sft.learning_rte: `learning_rte` is not a key of sft stages;"
            " did you mean `learning_rate`?",
        ),
        (
            "learning_rte=1",
            "learning_rte: `learning_rte` is not a key of this recipe;"
            " did you mean `learning_rate`?",
        ),
        ("qqq=1", "qqq: `qqq` is not a key of this recipe; docs/recipes.md lists every key"),
        (
            "stages.sfd.seed=1",
            "stages.sfd.seed: there is no stage `sfd`; stages: sft; did you mean `sft`?",
        ),
        ("stages.sft=1", "stages.sft: names a whole stage; set one of its keys"),
        (
            "stages.sft.datasets.4.split=x",
            "stages.sft.datasets.4.split: `stages.sft.datasets.4` is not there to change",
        ),
        (
            "stages.sft.datasets.4=x",
            "stages.sft.datasets.4: `stages.sft.datasets.4` is not there to change",
        ),
        (
            "stages.sft.batch_size.x=1",
            "stages[0].sft.batch_size: got {'x': 1}; must be a whole number at least 1",
        ),
        ("seed=[1", "seed: got '[1', which is not YAML; put it in quotes"),
        ("seed=", None),
        ("learning_rate=-1", "stages[0].sft.learning_rate: got -1; must be a number above 0"),
        ("noequals", "got 'noequals'; an override is written key=value"),
    ],
)
def test_wrong_overrides(faults, override, fault):
    expected = fault or (
        "seed: has no value; give a whole number, or remove the line to get the default"
    )
    assert faults(ONE, override) == [f"{expected} (from the command line)"]


def test_an_unknown_stage_to_mean(faults):
    assert faults(TWO, stage="rlvr") == ["there is no stage `rlvr`; stages: sft, pairs"]


def test_later_layers_win_over_what_they_contradict(load, faults):
    stage = load(ONE, "max_steps=3").stages[0]
    assert (stage.max_steps, stage.num_train_epochs) == (3, 1.0)
    assert load(TWO, "stages.sft.datasets.0.fraction=0.5").stages[0].datasets[0].fraction == 0.5
    assert faults(ONE, "max_steps=3", "num_train_epochs=2") == [
        "stages[0].sft.max_steps: contradicts `num_train_epochs`; remove one of them"
        " (from the command line)"
    ]


def test_peers_spellings_in_overrides(load):
    with pytest.warns(UserWarning, match="lr -> learning_rate"):
        assert load(ONE, "lr=2").stages[0].learning_rate == 2
    with pytest.warns(UserWarning, match="dataset_mixer_list -> datasets"):
        recipe = load(ONE, "dataset_mixer_list=[x, 0.5]")
    assert recipe.stages[0].datasets == (Source(path="x", fraction=0.5),)
    with pytest.warns(UserWarning, match="base_model -> model_name_or_path"):
        assert load(ONE, "base_model=other").model_name_or_path == "other"


@pytest.mark.parametrize(
    ("argv", "overrides"),
    [
        ([], []),
        (["--learning_rate", "1e-5"], ["learning_rate=1e-5"]),
        (["--learning-rate=1e-5"], ["learning_rate=1e-5"]),
        (["name=x", "--stages.sft-2.batch-size", "4"], ["name=x", "stages.sft-2.batch_size=4"]),
        (["--use_peft", "--seed", "-1"], ["use_peft=true", "seed=-1"]),
        (["stages.a.path=x=y", "--note=a=b"], ["stages.a.path=x=y", "note=a=b"]),
    ],
)
def test_arguments_become_overrides(argv, overrides):
    assert parse_override_args(argv) == overrides


def test_arguments_that_are_no_overrides():
    with pytest.raises(RecipeError) as caught:
        parse_override_args(["word", "-x", "1", "a=b"])
    assert [fault.message for fault in caught.value.faults] == [
        f"got {word!r}; an override is written key=value, --key value or --key=value"
        for word in ("word", "-x", "1")
    ]
