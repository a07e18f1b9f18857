"""Whatever stands in a recipe, the answer is a recipe or a RecipeError, never another exception."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import RecipeError
from posttrain.recipe import STAGES, Recipe, Source, Task, load_recipe
from posttrain.recipe.keys import aliases, keys

NAMES = sorted(
    {"extends", "trainer", "stage", "zzz", "datasets", *STAGES}.union(
        *({*keys(cls), *aliases(cls)} for cls in (Recipe, Source, Task, *STAGES.values()))
    )
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 9), st.floats(), st.sampled_from([*STAGES, "a", ""])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
blocks = st.dictionaries(st.sampled_from(NAMES), anything, max_size=6)
stage_lists = st.lists(st.dictionaries(st.sampled_from([*STAGES]), blocks, min_size=1, max_size=1))
files = st.builds(
    lambda loose, stages: {"name": "t", **loose, "stages": stages},
    blocks,
    stage_lists | anything,
)
overrides = st.lists(
    st.builds(
        lambda path, value: ".".join(path) + "=" + value,
        st.lists(st.sampled_from([*NAMES, "0", "1"]), min_size=1, max_size=4),
        st.sampled_from(["1", "x", "[a, 1.0]", "{a: 1}", "", "[", "1e-5", "true"]),
    ),
    max_size=2,
)


@settings(max_examples=150, deadline=None)
@given(files, overrides)
def test_only_recipe_errors(data, given_overrides):
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "r.yaml"
        path.write_text(yaml.safe_dump(data))
        try:
            assert isinstance(load_recipe(path, given_overrides), Recipe)
        except RecipeError as error:
            assert str(error).startswith(str(path))
            assert all(fault.message for fault in error.faults)
