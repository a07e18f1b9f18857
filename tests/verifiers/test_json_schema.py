from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import get_verifier, verify
from posttrain.verifiers.bounded.schema import faults

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        ('```json\n{"name": "Ann"}\n```', 1),
        ('Here you are:\n```\n{"name": "Ann"}\n```', 1),
        ('{"name": ""}', 0),
        ('{"age": 3}', 0),
        ('{"name": "Ann", "age": 3.5}', 0),
        ('{"name": "Ann", "age": 3.0}', 1),
        ('{"name": "Ann", "x": 1}', 0),
        ('Here: {"name": "Ann"}', 0),
        ('{"name": "Ann"} {"name": "Bob"}', 0),
        ("{'name': 'Ann'}", 0),
        ("[]", 0),
    ],
)
def test_completions(completion: str, score: float) -> None:
    assert verify("json_schema", completion, PERSON).score == score


def test_the_reason_names_the_place() -> None:
    nested = {"properties": {"rows": {"items": {"properties": {"n": {"maximum": 5}}}}}}
    verdict = verify("json_schema", '{"rows": [{"n": 1}, {"n": 9}]}', nested)
    assert verdict.reason == "$.rows[1].n is above 5"


RULES: list[tuple[Any, Any, bool]] = [
    ({"type": ["string", "null"]}, None, True),
    ({"type": "number"}, True, False),
    ({"enum": [1, "a", [2]]}, [2], True),
    ({"enum": [1]}, True, False),
    ({"const": {"a": 1}}, {"a": 1.0}, True),
    ({"const": 0}, False, False),
    ({"multipleOf": 0.1}, 0.3, True),
    ({"multipleOf": 2}, 7, False),
    ({"exclusiveMinimum": 1}, 1, False),
    ({"minimum": 1}, 1, True),
    ({"maxLength": 2}, "\U0001f600\U0001f600", True),
    ({"pattern": "^a+$"}, "aab", False),
    ({"pattern": "a"}, 7, True),
    ({"items": {"type": "integer"}}, [1, "x"], False),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [1], True),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [1, 2], False),
    ({"items": [{"type": "integer"}], "additionalItems": False}, [1, 2], False),
    ({"contains": {"const": 5}}, [1, 5], True),
    ({"contains": {"const": 5}}, [], False),
    ({"contains": {"const": 5}, "minContains": 0}, [], True),
    ({"contains": {"const": 5}, "maxContains": 1}, [5, 5], False),
    ({"uniqueItems": True}, [1, 1.0], False),
    ({"uniqueItems": True}, [1, True, [1], [True]], True),
    ({"minItems": 2}, [1], False),
    ({"minProperties": 1, "maxProperties": 1}, {"a": 1}, True),
    ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": "x"}, False),
    ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"n_a": 1}, True),
    ({"propertyNames": {"maxLength": 2}}, {"abc": 1}, False),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, False),
    ({"dependencies": {"a": ["b"]}}, {"a": 1, "b": 2}, True),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, False),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 4, False),
    ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 2, False),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, False),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 1, True),
    ({"not": {"type": "string"}}, "a", False),
    ({"if": {"minimum": 5}, "then": {"multipleOf": 2}, "else": {"const": 1}}, 7, False),
    ({"if": {"minimum": 5}, "then": {"multipleOf": 2}, "else": {"const": 1}}, 1, True),
    ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, ["x"], False),
    ({"$defs": {"n": {"$anchor": "num", "type": "integer"}}, "$ref": "#num"}, 3, True),
    ({"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"}, 2, False),
    (
        {"properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}},
        {"next": {"v": "x"}},
        False,
    ),
    ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1, "b": 1}, False),
    ({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, {"a": 1}, True),
    ({"prefixItems": [{}], "unevaluatedItems": False}, [1, 2], False),
    ({"format": "email"}, "not one", True),
    (True, 3, True),
    (False, 3, False),
]


@pytest.mark.parametrize(("schema", "instance", "fits"), RULES)
def test_keywords(schema: Any, instance: Any, fits: bool) -> None:
    assert (faults(schema, instance) == "") is fits


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "text"}, "the type 'text'"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "leads nowhere"),
        ({"$ref": "https://example.com/schema"}, "leads nowhere"),
        ({"$dynamicRef": "#a", "type": "object"}, "the keyword"),
        ({"pattern": "("}, "the pattern"),
        ({"nonsense": 1}, "the keywords"),
    ],
)
def test_a_schema_that_is_not_understood_is_an_error(schema: Any, why: str) -> None:
    with pytest.raises(VerifierError, match=why):
        get_verifier("json_schema").check_ground_truth(json.dumps(schema))
