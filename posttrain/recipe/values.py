"""One node -> one typed value, or the reason why not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any, get_args, get_origin

from posttrain.recipe.keys import Key, nearest
from posttrain.recipe.nodes import Faults, Node

BAD: Any = object()
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number that YAML 1.1 leaves as text


def read_value(key: Key, node: Node, path: str, faults: Faults) -> Any:
    """Read one value as its key wants it; `BAD` after recording why not."""
    if node.value is None:
        if key.optional:
            return None
        fallback = "" if key.default is MISSING else ", or remove the line to get the default"
        faults.at(path, node, f"has no value; give {key.wants()}{fallback}")
        return BAD
    value = next((v for hint in key.types if (v := _as(hint, node)) is not BAD), BAD)
    if value is BAD or not _within(key, value):
        faults.at(path, node, f"got {shown(node)}; must be {key.wants()}{_advice(key, node)}")
        return BAD
    if key.method and "name" not in value:
        value = {"name": key.method, **value}
    return value


def is_number_text(text: str) -> bool:
    """Whether an unquoted text is meant as a number, as `5e-6` is."""
    return bool(_EXPONENT.fullmatch(text))


def shown(node: Node) -> str:
    """A value as it would be written, shortened."""
    value = node.plain()
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    number = isinstance(value, str) and not node.quoted and is_number_text(value)
    text = repr(value) if isinstance(value, (str, list, dict)) and not number else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(node: Node) -> Any:
    return node.value if isinstance(node.value, str) and node.value.strip() else BAD


def _number(node: Node) -> Any:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float, str)):
        return BAD
    try:
        value = float(node.value)
    except (ValueError, OverflowError):
        return BAD
    return value if math.isfinite(value) else BAD


def _whole(node: Node) -> Any:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    value = _number(node)
    return int(value) if value is not BAD and value.is_integer() else BAD


def _flag(node: Node) -> Any:
    return node.value if isinstance(node.value, bool) else BAD


def _free(node: Node) -> Any:
    """An option that another room will judge: any plain value, numbers read as numbers."""
    value = node.value
    if isinstance(value, dict):
        named = {name: _free(item) for name, item in value.items()}
        return BAD if BAD in named.values() else named
    if isinstance(value, list):
        items = [_free(item) for item in value]
        return BAD if BAD in items else items
    if isinstance(value, str) and not node.quoted and is_number_text(value):
        return float(value)
    return value if value is None or isinstance(value, (str, int, float)) else BAD


_SCALARS: dict[Any, Callable[[Node], Any]] = {
    str: _text,
    float: _number,
    int: _whole,
    bool: _flag,
    Any: _free,
}


def _as(hint: Any, node: Node) -> Any:
    """The node's value as `hint`, or `BAD`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(node.value, list) and args[0] in _SCALARS:
        items = tuple(_SCALARS[args[0]](item) for item in node.value)
        return BAD if BAD in items else items
    if origin is Mapping and isinstance(node.value, dict):
        named = {name: _SCALARS[args[1]](item) for name, item in node.value.items()}
        return BAD if BAD in named.values() else named
    return _SCALARS[hint](node) if hint in _SCALARS else BAD


def _within(key: Key, value: Any) -> bool:
    if key.choices:
        return value in key.choices
    if not isinstance(value, (int, float)):
        return True
    return not (
        (key.above is not None and value <= key.above)
        or (key.at_least is not None and value < key.at_least)
        or (key.at_most is not None and value > key.at_most)
    )


def _advice(key: Key, node: Node) -> str:
    """What to change, where the mistake has a usual form."""
    value = node.value
    if key.choices and (near := nearest(str(value), map(str, key.choices))):
        return f"; did you mean {near}?"
    if str in key.types and isinstance(value, str):
        return "; it may not be blank" if not value.strip() else ""
    if str in key.types and not isinstance(value, (dict, list)):
        return "; put it in quotes"
    if bool in key.types and str(value).lower() in ("true", "false", "yes", "no", "on", "off"):
        return "; write true or false without quotes"
    if key.is_list and not isinstance(value, list):
        return "; write [...], or one `- ` line per entry"
    return ""
