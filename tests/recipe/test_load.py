from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe import DPO, RLVR, SFT, Eval, Recipe, Source, Task, load_recipe, stage_name

ROOT = Path(__file__).parents[2]

SMALL = """\
name: small
model_name_or_path: models/llama
stages:
  - sft:
      datasets: [rows.jsonl, {path: more.jsonl, num_samples: 5}]
      learning_rate: 5e-6
  - dpo: {datasets: [pairs.jsonl], loss: dpo}
eval: [gsm8k, {name: ifeval, num_samples: 9}]
"""


def test_reads_a_whole_recipe(load):
    assert load(SMALL) == Recipe(
        name="small",
        model_name_or_path="models/llama",
        stages=(
            SFT(
                datasets=(Source(path="rows.jsonl"), Source(path="more.jsonl", num_samples=5)),
                learning_rate=5e-6,
            ),
            DPO(datasets=(Source(path="pairs.jsonl"),), loss={"name": "dpo"}),
        ),
        eval=Eval(tasks=(Task(name="gsm8k"), Task(name="ifeval", num_samples=9))),
    )


def test_the_same_kind_twice_needs_names(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: {datasets: [a]}\n  - sft: {name: more, datasets: [b]}\n"
    )
    assert [stage_name(stage) for stage in recipe.stages] == ["sft", "more"]


def test_all_faults_come_at_once_in_the_order_of_the_file(faults):
    found = faults(
        "name: t\nstages:\n  - sft:\n      datasets: [a]\n      lr: -1\n      max_lenght: 7\n"
    )
    assert found == [
        "line 1: model_name_or_path: is missing; give the hub id or folder of the base model,"
        " or make the first stage `pretrain`",
        "line 5: stages[0].sft.learning_rate: got -1; must be a number above 0",
        "line 6: stages[0].sft.max_lenght: `max_lenght` is not a key of sft stages;"
        " did you mean `max_length`?",
    ]


def test_the_error_names_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: t\nmodel_name_or_path: m\nstages: []\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: line 3: stages: is empty; give at least one"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("# only a comment\n", "it is empty"),
        ("- a\n- b\n", "it is a list, not a mapping of keys such as `name:` and `stages:`"),
        ("just words\n", "it is a single value, not a mapping"),
        ("a: 1\n", "it has neither `name` nor `stages`"),
        ("name: t\nb: [1, 2\n", "line 3 is not YAML: "),
        ("name: t\n\tb: 1\n", "line 2 is not YAML: found character '\\t'"),
        ("name: &a [*a]\n", "line 1 is not YAML: an anchor contains itself"),
        ("name: t\x00\n", "it is not YAML: unacceptable character #x0000"),
        ("---\nname: a\n---\nname: b\n", "line 3 is not YAML: but found another document"),
        ("name: !!python/name:os.system\n", "line 1 is not YAML: could not determine a construct"),
    ],
)
def test_what_is_no_recipe(load, tmp_path, text, why):
    with pytest.raises(RecipeError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'recipe.yaml'} is not a posttrain recipe: {why}")
    assert "\n" not in message


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(RecipeError, match="not a posttrain recipe: it is not UTF-8 text"):
        load_recipe(path)


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "tulu.yaml").write_text("name: t\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "tuluu.yaml")
    assert str(caught.value).endswith(
        f"there is no such file; did you mean {tmp_path / 'tulu.yaml'}?"
    )


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"it cannot be read \(Is a directory\)"):
        load_recipe(tmp_path)


def test_the_flat_files_of_other_tools_are_told_where_their_keys_go(load):
    with pytest.raises(RecipeError) as caught:
        load("trainer: dpo\nmodel_name_or_path: m\nlearning_rate: 1e-5\nmax_seq_length: 9\n")
    assert str(caught.value).endswith(
        "it has no `stages`; put the stage's keys (learning_rate, max_seq_length)"
        " under `stages: [{dpo: {...}}]`"
    )


def test_a_key_given_twice(stage_faults):
    assert stage_faults("sft", "datasets: [a]\nseed: 1\nseed: 1") == [
        "line 7: stages[0].sft.seed: given twice (first on line 6); keep one of them"
    ]


def test_a_key_that_is_no_text(faults):
    found = faults(SMALL + "7: x\non: y\n? [a]\n: z\n")
    assert found == [
        "line 9: a key must be text, got 7; put it in quotes",
        "line 10: a key must be text, got on; put it in quotes",
        "line 11: a key must be text, got a list or mapping; put it in quotes",
    ]


def test_anchors_and_merge_keys(load):
    recipe = load(
        "name: t\nmodel_name_or_path: m\nstages:\n"
        "  - sft: &first {datasets: [a], learning_rate: 1.0, seed: 3}\n"
        "  - sft: {<<: *first, name: two, seed: 4}\n"
        "  - sft: {<<: *first, name: three}\n",
        "stages.two.learning_rate=2",
    )
    assert [(s.learning_rate, s.seed) for s in recipe.stages] == [(1.0, 3), (2.0, 4), (1.0, 3)]


def test_extends_lays_one_recipe_over_another(load, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nmodel_name_or_path: m\nseed: 1\nstages:\n"
        "  - sft: {datasets: [a, b], batch_size: 64, num_train_epochs: 2, max_seq_length: 10}\n"
        "  - dpo: {datasets: [p], loss: {name: dpo, beta: 5, length_normalise: true}}\n"
        "eval: {suite: x, batch_size: 4}\n"
    )
    with pytest.warns(UserWarning, match="max_seq_length -> max_length"):
        recipe = load(
            "extends: base.yaml\nname: child\nstages:\n"
            "  - dpo: {loss: {beta: 2}}\n"
            "  - sft: {datasets: [c], max_steps: 3, max_length: 20}\n"
            "  - rlvr: {datasets: [r]}\n"
            "eval: {batch_size: 8}\n"
        )
    sft, dpo, rlvr = recipe.stages
    assert (recipe.name, recipe.model_name_or_path, recipe.seed) == ("child", "m", 1)
    assert sft == SFT(datasets=(Source(path="c"),), batch_size=64, max_steps=3, max_length=20)
    assert dpo.loss == {"name": "dpo", "beta": 2, "length_normalise": True}
    assert rlvr == RLVR(datasets=(Source(path="r"),))
    assert recipe.eval == Eval(suite="x", batch_size=8)


def test_another_loss_inherits_no_options(load, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nmodel_name_or_path: m\nstages:\n"
        "  - dpo: {datasets: [p], loss: {name: dpo, beta: 5}}\n"
    )
    recipe = load("extends: base.yaml\nstages: [{dpo: {loss: {name: simpo, gamma: 1}}}]\n")
    assert recipe.stages[0].loss == {"name": "simpo", "gamma": 1}


def test_extends_finds_faults_in_both_files(faults, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nmodel_name_or_path: m\nstages:\n  - sft: {datasets: [a], lerning_rate: 1}\n"
    )
    assert faults("extends: base.yaml\nsed: 3\n") == [
        "line 2: sed: `sed` is not a key of a recipe; did you mean `seed`?",
        "stages[0].sft.lerning_rate: `lerning_rate` is not a key of sft stages;"
        " did you mean `learning_rate`? (base.yaml, line 4)",
    ]


def test_extends_goes_one_level_deep(faults, tmp_path):
    (tmp_path / "b.yaml").write_text("extends: c.yaml\n" + SMALL)
    assert faults("name: t\nextends: b.yaml\n") == [
        "line 2: extends: b.yaml extends c.yaml; only one level is allowed:"
        " copy the keys of one into the other"
    ]


def test_extends_of_a_missing_file(faults, tmp_path):
    found = faults("name: t\nextends: none.yaml\n")
    assert (
        f"line 2: extends: {tmp_path / 'none.yaml'} is not a posttrain recipe: there is no"
        in (found[-1])
    )


def test_a_stage_cannot_change_its_kind_by_extension(faults, tmp_path):
    (tmp_path / "b.yaml").write_text(SMALL)
    found = faults("extends: b.yaml\nstages:\n  - reward: {name: dpo, datasets: [a]}\n")
    assert found == [
        "line 3: stages[0].reward: stage `dpo` is a dpo stage in the extended recipe; rename it"
    ]


def test_loading_is_fast_and_needs_no_torch(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(SMALL)
    code = (
        "import sys, yaml\nfrom posttrain.recipe import load_recipe\n"
        f"load_recipe({str(path)!r})\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    load_recipe(path)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        load_recipe(path)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
