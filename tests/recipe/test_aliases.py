from __future__ import annotations

import warnings

import pytest

from posttrain.recipe import SFT, Source, dump_recipe, load_recipe


def test_one_warning_names_every_pair(load):
    with pytest.warns(UserWarning) as caught:
        recipe = load(
            "name: t\nbase_model: m\nstages:\n"
            "  - sft: {datasets: [{path: a, subset: s}], sequence_len: 7, micro_batch_size: 4}\n"
        )
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "\n" not in message
    for pair in (
        "base_model -> model_name_or_path",
        "subset -> name",
        "sequence_len -> max_length",
        "micro_batch_size -> per_device_train_batch_size",
    ):
        assert pair in message
    assert caught[0].filename == __file__.replace("test_aliases", "conftest")
    assert recipe.model_name_or_path == "m"
    assert recipe.stages == (
        SFT(datasets=(Source(path="a", name="s"),), max_length=7, per_device_train_batch_size=4),
    )


def test_our_own_spelling_warns_of_nothing(load, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = load("name: t\nmodel_name_or_path: m\nstages: [{sft: {datasets: [a]}}]\n")
        (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
        load_recipe(tmp_path / "again.yaml")


def test_old_and_new_with_one_value(load):
    with pytest.warns(UserWarning, match="lr -> learning_rate"):
        recipe = load(
            "name: t\nmodel_name_or_path: m\n"
            "stages: [{sft: {datasets: [a], lr: 1e-5, learning_rate: 1.0e-5}}]\n"
        )
    assert recipe.stages[0].learning_rate == 1e-5


def test_old_and_new_with_different_values(stage_faults):
    assert stage_faults("sft", "datasets: [a]\nmax_length: 4096\nmax_seq_length: 2048") == [
        "line 7: stages[0].sft.max_seq_length: got 2048, but it means the same as `max_length`"
        " (4096, line 6); remove one of them"
    ]


def test_two_old_spellings_with_different_values(stage_faults):
    [fault] = stage_faults("sft", "datasets: [a]\nsequence_len: 4096\ncutoff_len: 2048")
    assert "cutoff_len: got 2048, but it means the same as `max_length` (4096, line 6)" in fault


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("1.0", Source(path="a")),
        ("'1.0'", Source(path="a")),
        ("0.5", Source(path="a", fraction=0.5)),
        ("'3.0'", Source(path="a", repeat=3.0)),
        ("1", Source(path="a", num_samples=1)),
        ("'500'", Source(path="a", num_samples=500)),
    ],
)
def test_mixer_lists(load, written, source):
    with pytest.warns(UserWarning, match="dataset_mixer_list -> datasets"):
        recipe = load(
            "name: t\nmodel_name_or_path: m\n"
            f"stages: [{{sft: {{dataset_mixer_list: [a, {written}, b, 0.25]}}}}]\n"
        )
    assert recipe.stages[0].datasets == (source, Source(path="b", fraction=0.25))


def test_mixer_mapping_and_mixture(load):
    with pytest.warns(UserWarning):
        recipe = load(
            "name: t\nmodel_name_or_path: m\nstages:\n"
            "  - sft: {dataset_mixer: {a: 10, b: 1.0}}\n"
            "  - dpo: {dataset_mixture: {datasets: [{path: c, split: test}]}}\n"
        )
    assert recipe.stages[0].datasets == (Source(path="a", num_samples=10), Source(path="b"))
    assert recipe.stages[1].datasets == (Source(path="c", split="test"),)


@pytest.mark.parametrize("amount", ["0", "0.0", "-5", "many", "'1e3'", "null"])
def test_wrong_amounts(stage_faults, amount):
    [fault] = stage_faults("sft", f"dataset_mixer_list: [a, {amount}]")
    assert fault.startswith("line 5: stages[0].sft.dataset_mixer_list: got the amount")
    assert "for 'a'; must be a whole number of rows (500), or with a point a share" in fault


def test_a_mixer_list_that_does_not_alternate(stage_faults):
    found = stage_faults("sft", "dataset_mixer_list: [a, 1.0, b]")
    assert found[0] == (
        "line 5: stages[0].sft.dataset_mixer_list: must alternate name and amount, got 3 entries"
    )
