"""JSON that must fit a schema (JSON Schema, drafts 6 to 2020-12)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import answer_of, shown
from posttrain.verifiers.bounded.patterns import schema_faults
from posttrain.verifiers.bounded.schema import unsupported

_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:json)?[ \t]*\n(.*?)^[ \t]*```", re.M | re.S | re.I)


@dataclass(frozen=True)
class JsonSchema:
    """The completion, or its only fenced block, is JSON that fits the ground truth's schema.

    Attributes:
        max_length: longer completions are not read.
        cpu_seconds: what one validation may use: a schema's patterns may be slow.
    """

    max_length: int = 200_000
    cpu_seconds: float = 0.7

    def check_ground_truth(self, ground_truth: Any) -> None:
        self._schema(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        schema = self._schema(ground_truth)
        text = answer_of(completion)
        if not text or len(text) > self.max_length:
            return Verdict(0.0, f"{len(text)} characters are no JSON to be read")
        fences = _FENCE.findall(text)
        try:
            instance = json.loads(fences[0] if len(fences) == 1 else text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return Verdict(0.0, f"not JSON: {str(error)[:100]}")
        fault = schema_faults(schema, instance, self.cpu_seconds)
        if fault is None:
            return Verdict(0.0, "the validation took too long", "timeout")
        return Verdict(float(not fault), fault[:200] or "the JSON fits the schema")

    @staticmethod
    def _schema(ground_truth: Any) -> Any:
        value = ground_truth
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, Mapping) or not value:
            raise VerifierError(
                "json_schema needs a JSON schema, as an object or its JSON text, got"
                f" {shown(ground_truth)}"
            )
        known = set(value) & _KEYWORDS
        try:
            why = unsupported(value) if known else f"the keywords {sorted(value)}"
        except (AttributeError, TypeError, RecursionError) as error:
            why = f"this schema ({error})"
        if why:
            raise VerifierError(f"json_schema needs a schema that it knows; it does not know {why}")
        return value


_KEYWORDS_TEXT = """
$defs $id $ref $schema additionalProperties allOf anyOf const contains definitions
dependencies dependentRequired dependentSchemas enum else exclusiveMaximum exclusiveMinimum
format if items maxItems maxLength maxProperties maximum minItems minLength minProperties
minimum multipleOf not oneOf pattern patternProperties prefixItems properties propertyNames
required then title description type unevaluatedItems unevaluatedProperties uniqueItems
"""
_KEYWORDS = frozenset(_KEYWORDS_TEXT.split())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
