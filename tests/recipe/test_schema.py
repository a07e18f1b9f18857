from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.recipe import json_schema
from posttrain.recipe.schema import generated

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["recipes/schema.json", "docs/recipes.md"])
def test_generated_files_are_current(name):
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == generated()[name], "stale: run `python -m posttrain.recipe.schema`"


def test_schema_says_what_the_loader_takes():
    schema = json_schema()
    kinds = schema["$defs"]["stage"]["properties"]
    assert list(kinds) == ["pretrain", "sft", "dpo", "reward", "rlvr"]
    sft = schema["$defs"]["sft"]["properties"]
    assert sft["learning_rate"] == {
        "description": "Peak learning rate.",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1e-5,
    }
    assert sft["max_seq_length"] == {"description": "Means `max_length`.", "deprecated": True}
    assert sft["truncation"]["enum"] == ["truncate", "drop", "error"]
    assert sft["datasets"]["items"] == {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/source"}]}
    loss = schema["$defs"]["dpo"]["properties"]["loss"]
    assert loss["anyOf"] == [{"type": "object"}, {"type": "string"}]
    assert schema["properties"]["eval"]["anyOf"][0] == {"$ref": "#/$defs/eval"}
    assert "extends" in schema["properties"]
    assert schema["additionalProperties"] is False


def test_every_reference_is_defined():
    schema = json_schema()

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(schema))
    assert found == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_reference_says_type_default_bounds_and_aliases():
    page = generated()["docs/recipes.md"]
    assert (
        "| `max_length` | integer | `2048` | Longest sequence in tokens. At least 2. |"
        " `max_seq_length`, `sequence_len`, `cutoff_len` |"
    ) in page
    assert "| `path` | text | **required** |" in page
    assert "One of `nf4`, `fp4`." in page
