"""JSON Schema (drafts 6 to 2020-12), the keywords that say something of an instance.

`format`, `contentMediaType` and annotations say nothing, as the drafts have it by default. A
reference is to the schema's own document: `#`, `#/a/b`, `#anchor`, or the `$id` of a part of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

TYPES: dict[str, Callable[[Any], bool]] = {
    "array": lambda v: isinstance(v, list),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: is_number(v) and float(v).is_integer(),
    "null": lambda v: v is None,
    "number": lambda v: is_number(v),
    "object": lambda v: isinstance(v, dict),
    "string": lambda v: isinstance(v, str),
}
_UNSUPPORTED = ("$dynamicRef", "$recursiveRef")
# What a mapping or a list under a keyword holds: schemas by name, or in a row.
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_BELOW = (
    "additionalProperties", "additionalItems", "items", "contains", "propertyNames", "not", "if",
    "then", "else", "allOf", "anyOf", "oneOf", "prefixItems", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(left: Any, right: Any) -> bool:
    """Equality of JSON: 1 is 1.0, and neither is true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return bool(left == right)


def unsupported(schema: Any) -> str:
    """The first thing in a schema that is not understood here, or nothing."""
    for part in parts(schema):
        if not isinstance(part, dict | bool):
            return f"a schema that is {json.dumps(part)[:40]}"
        if isinstance(part, bool):
            continue
        for key in _UNSUPPORTED:
            if key in part:
                return f"the keyword {key}"
        if "$ref" in part and find(schema, part["$ref"]) is None:
            return f"the reference {part['$ref']!r}, which leads nowhere in this schema"
        names = part.get("type", [])
        for name in [names] if isinstance(names, str) else names:
            if name not in TYPES:
                return f"the type {name!r}"
        for pattern in [part.get("pattern"), *part.get("patternProperties", {})]:
            try:
                re.compile(pattern or "")
            except (re.error, TypeError) as error:
                return f"the pattern {pattern!r} ({error})"
    return ""


def parts(schema: Any) -> Iterator[Any]:
    """The schema and every schema inside it."""
    yield schema
    if not isinstance(schema, dict):
        return
    for key in _BY_NAME:
        if isinstance(schema.get(key), dict):
            for below in schema[key].values():
                yield from parts(below)
    for key in _BELOW:
        below = schema.get(key)
        for each in below if isinstance(below, list) else [below] if below is not None else []:
            yield from parts(each)
    for below in schema.get("dependencies", {}).values():
        if not isinstance(below, list):
            yield from parts(below)


def find(root: Any, reference: str) -> Any:
    """What a reference leads to, or `None`."""
    base, _, place = reference.partition("#")
    start = root
    if base:
        ids = [p for p in parts(root) if isinstance(p, dict) and p.get("$id", "").rstrip("#")]
        start = next((p for p in ids if p["$id"].split("/")[-1] == base.split("/")[-1]), None)
    if not place:
        return start
    if not place.startswith("/"):
        named = [p for p in parts(start) if isinstance(p, dict)]
        return next((p for p in named if place in (p.get("$anchor"), p.get("$id", "")[1:])), None)
    for step in place[1:].split("/"):
        step = re.sub("%([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), step)
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            start = start[int(step)] if isinstance(start, list) else start[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return start


def faults(schema: Any, instance: Any) -> str:
    """The first fault of an instance under a schema, or nothing."""
    return next(Validation(schema).check(schema, instance, "$"), "")


class Validation:
    """One document's schemas; `check` yields what is wrong, with the place in the instance."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def fits(self, schema: Any, value: Any) -> bool:
        return next(self.check(schema, value, "$"), None) is None

    def check(self, schema: Any, value: Any, place: str) -> Iterator[str]:
        if isinstance(schema, bool):
            if not schema:
                yield f"{place} must not be there"
            return
        if "$ref" in schema:
            yield from self.check(find(self.root, schema["$ref"]), value, place)
        yield from self.check_value(schema, value, place)
        yield from self.check_combined(schema, value, place)
        if isinstance(value, str):
            yield from check_text(schema, value, place)
        elif is_number(value):
            yield from check_number(schema, value, place)
        elif isinstance(value, list):
            yield from self.check_array(schema, value, place)
        elif isinstance(value, dict):
            yield from self.check_object(schema, value, place)

    def check_value(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if not any(TYPES[name](value) for name in names):
                yield f"{place} is not of type {' or '.join(names)}"
        if "enum" in schema and not any(same(value, option) for option in schema["enum"]):
            yield f"{place} is none of the enum's values"
        if "const" in schema and not same(value, schema["const"]):
            yield f"{place} is not the constant"

    def check_combined(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
        for below in schema.get("allOf", []):
            yield from self.check(below, value, place)
        if "anyOf" in schema and not any(self.fits(s, value) for s in schema["anyOf"]):
            yield f"{place} fits none of anyOf"
        if "oneOf" in schema and sum(self.fits(s, value) for s in schema["oneOf"]) != 1:
            yield f"{place} does not fit exactly one of oneOf"
        if "not" in schema and self.fits(schema["not"], value):
            yield f"{place} fits what it must not"
        if "if" in schema:
            branch = schema.get("then" if self.fits(schema["if"], value) else "else", True)
            yield from self.check(branch, value, place)

    def check_array(self, schema: dict[str, Any], value: list[Any], place: str) -> Iterator[str]:
        if len(value) < schema.get("minItems", 0):
            yield f"{place} has fewer than {schema['minItems']} items"
        if len(value) > schema.get("maxItems", math.inf):
            yield f"{place} has more than {schema['maxItems']} items"
        if schema.get("uniqueItems") and any(
            same(a, b) for i, a in enumerate(value) for b in value[:i]
        ):
            yield f"{place} has equal items"
        first = schema.get("prefixItems", [])
        rest = schema.get("items", True)
        if isinstance(rest, list):  # before 2020-12
            first, rest = rest, schema.get("additionalItems", True)
        for i, item in enumerate(value):
            yield from self.check(first[i] if i < len(first) else rest, item, f"{place}[{i}]")
        if "contains" in schema:
            count = sum(self.fits(schema["contains"], item) for item in value)
            if not schema.get("minContains", 1) <= count <= schema.get("maxContains", math.inf):
                yield f"{place} contains {count} such items"
        if schema.get("unevaluatedItems", True) is not True:
            for i in sorted(set(range(len(value))) - self.seen_items(schema, value)):
                yield from self.check(schema["unevaluatedItems"], value[i], f"{place}[{i}]")

    def check_object(
        self, schema: dict[str, Any], value: dict[str, Any], place: str
    ) -> Iterator[str]:
        for name in schema.get("required", []):
            if name not in value:
                yield f"{place} lacks {name!r}"
        if len(value) < schema.get("minProperties", 0):
            yield f"{place} has fewer than {schema['minProperties']} properties"
        if len(value) > schema.get("maxProperties", math.inf):
            yield f"{place} has more than {schema['maxProperties']} properties"
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, item in value.items():
            below = [properties[name]] if name in properties else []
            below += [s for pattern, s in patterns.items() if re.search(pattern, name)]
            for each in below or [schema.get("additionalProperties", True)]:
                yield from self.check(each, item, f"{place}.{name}")
            if "propertyNames" in schema:
                yield from self.check(schema["propertyNames"], name, f"{place}'s name {name!r}")
        needs = schema.get("dependentRequired", {}) | schema.get("dependencies", {})
        for name, below in (needs | schema.get("dependentSchemas", {})).items():
            if name in value:
                then = {"required": below} if isinstance(below, list) else below
                yield from self.check(then, value, place)
        if schema.get("unevaluatedProperties", True) is not True:
            for name in sorted(set(value) - self.seen_names(schema, value)):
                yield from self.check(schema["unevaluatedProperties"], value[name], place)

    def applied(self, schema: Any, value: Any) -> Iterator[dict[str, Any]]:
        """The schema and those of its combinations that the value fits."""
        if not isinstance(schema, dict):
            return
        yield schema
        below = [*schema.get("allOf", []), *schema.get("anyOf", []), *schema.get("oneOf", [])]
        if "$ref" in schema:
            below.append(find(self.root, schema["$ref"]))
        if "if" in schema:
            is_then = self.fits(schema["if"], value)
            below += [schema["if"]] if is_then else []
            below.append(schema.get("then" if is_then else "else", True))
        if isinstance(value, dict):
            needs = {**schema.get("dependencies", {}), **schema.get("dependentSchemas", {})}
            below += [s for name, s in needs.items() if name in value and isinstance(s, dict)]
        for each in below:
            if self.fits(each, value):
                yield from self.applied(each, value)

    def seen_names(self, schema: Any, value: dict[str, Any]) -> set[str]:
        seen: set[str] = set()
        for part in self.applied(schema, value):
            patterns = part.get("patternProperties", {})
            seen |= set(part.get("properties", {}))
            seen |= {n for n in value if any(re.search(p, n) for p in patterns)}
            own = part is schema
            if "additionalProperties" in part or ("unevaluatedProperties" in part and not own):
                seen |= set(value)
        return seen

    def seen_items(self, schema: Any, value: list[Any]) -> set[int]:
        seen: set[int] = set()
        for part in self.applied(schema, value):
            first = part.get("prefixItems", [])
            rest = part.get("items")
            if isinstance(rest, list):
                first, rest = rest, part.get("additionalItems")
            seen |= set(range(len(first)))
            if rest is not None or ("unevaluatedItems" in part and part is not schema):
                seen |= set(range(len(value)))
            if "contains" in part:
                seen |= {i for i, item in enumerate(value) if self.fits(part["contains"], item)}
        return seen


def check_text(schema: dict[str, Any], value: str, place: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{place} is shorter than {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", math.inf):
        yield f"{place} is longer than {schema['maxLength']} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place} does not match {schema['pattern']!r}"


def check_number(schema: dict[str, Any], value: float, place: str) -> Iterator[str]:
    if value < schema.get("minimum", -math.inf):
        yield f"{place} is below {schema['minimum']}"
    if value > schema.get("maximum", math.inf):
        yield f"{place} is above {schema['maximum']}"
    if value <= schema.get("exclusiveMinimum", -math.inf):
        yield f"{place} is not above {schema['exclusiveMinimum']}"
    if value >= schema.get("exclusiveMaximum", math.inf):
        yield f"{place} is not below {schema['exclusiveMaximum']}"
    if "multipleOf" in schema:
        step = Fraction(str(schema["multipleOf"]))
        if Fraction(str(value)) % step:
            yield f"{place} is no multiple of {schema['multipleOf']}"
