from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.recipe import (
    DPO,
    RLVR,
    SFT,
    Eval,
    Pretrain,
    Recipe,
    Reward,
    Source,
    Task,
    dump_recipe,
    load_recipe,
    to_dict,
)

text = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).filter(str.strip) | st.sampled_from(
    ["1e-5", "true", "null", "2024-01-01", "a: b", "- x", "'", "~"]
)
numbers = st.floats(1e-9, 1e6)
options = st.dictionaries(
    text.filter(lambda name: name not in ("name", "beta")),
    st.none() | st.booleans() | st.integers() | numbers | text | st.lists(text, max_size=2),
    max_size=3,
)
sources = st.lists(
    st.builds(
        Source,
        path=text,
        revision=st.none() | text,
        data_files=st.none() | text | st.lists(text, max_size=2).map(tuple),
        columns=st.dictionaries(text, text, max_size=2),
        num_samples=st.none() | st.integers(1, 10**9),
    ),
    min_size=1,
    max_size=2,
).map(tuple)
common = {
    "datasets": sources,
    "filters": st.lists(text | options.map(lambda o: {"name": "f", **o}), max_size=2).map(tuple),
    "learning_rate": numbers,
    "gradient_checkpointing": st.booleans(),
    "seed": st.none() | st.integers(),
}
stage_lists = st.tuples(
    st.builds(SFT, **common, max_steps=st.none() | st.integers(1, 99)),
    st.builds(DPO, **common, loss=options.map(lambda o: {"name": "dpo", **o})),
    st.builds(Reward, **common, start=st.sampled_from([None, "base", "sft"])),
    st.builds(RLVR, **common, remap_verifier=st.dictionaries(text, text, max_size=2)),
)
recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
    model_name_or_path=text,
    stages=stage_lists,
    eval=st.none() | st.builds(Eval, tasks=st.lists(st.builds(Task, name=text)).map(tuple)),
)


def again(recipe: Recipe) -> Recipe:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_text(dump_recipe(recipe), encoding="utf-8")
        return load_recipe(path)


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_a_dumped_recipe_loads_to_itself(recipe):
    assert again(recipe) == recipe


def test_every_key_is_written_in_the_order_of_its_declaration():
    recipe = Recipe(
        name="t",
        stages=(Pretrain(datasets=(Source(path="a"),), model={"model_type": "llama"}),),
        eval=Eval(tasks=(Task(name="x"),)),
    )
    plain = yaml.safe_load(dump_recipe(recipe))
    assert list(plain) == [field.name for field in fields(Recipe)]
    assert list(plain["stages"][0]["pretrain"]) == [field.name for field in fields(Pretrain)]
    assert list(plain["stages"][0]["pretrain"]["datasets"][0]) == [f.name for f in fields(Source)]
    assert list(plain["eval"]["tasks"][0]) == [field.name for field in fields(Task)]
    assert again(recipe) == recipe


def test_epochs_are_left_out_where_steps_decide():
    stage = SFT(datasets=(Source(path="a"),), max_steps=5)
    recipe = Recipe(name="t", model_name_or_path="m", stages=(stage,))
    plain = yaml.safe_load(dump_recipe(recipe))["stages"][0]["sft"]
    assert plain["max_steps"] == 5
    assert "num_train_epochs" not in plain
    assert again(recipe) == recipe


def test_parts_as_plain_data():
    source = Source(path="a", data_files=("x", "y"))
    assert to_dict(source)["data_files"] == ["x", "y"]
    assert to_dict(SFT(datasets=(source,)))["sft"]["datasets"][0]["path"] == "a"
    assert to_dict({"a": (1, 2)}) == {"a": [1, 2]}
