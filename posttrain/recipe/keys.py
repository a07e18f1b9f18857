"""What spec.py declares, in the form that the loader, the schema and the reference read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Key:
    """One declared key.

    Attributes:
        types: the types it may have, `None` left out.
        optional: whether null is allowed.
        default: its default, or `MISSING` when it must be given.
        block: the dataclass that its value, or each entry of its list, is read as.
    """

    name: str
    types: tuple[Any, ...]
    optional: bool
    default: Any
    block: type | None
    help: str
    above: float | None
    at_least: float | None
    at_most: float | None
    choices: tuple[Any, ...] | None
    aliases: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        """Whether a list is what it takes."""
        return any(get_origin(hint) is tuple for hint in self.types)

    @property
    def method(self) -> str | None:
        """Name of the default method of a `{name: ..., option: ...}` key, else `None`."""
        return self.default.get("name") if isinstance(self.default, dict) else None

    def bounds(self) -> str:
        """`above 0 and at most 1`, or nothing."""
        words = [("above", self.above), ("at least", self.at_least), ("at most", self.at_most)]
        return " and ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)

    def wants(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        words = " or ".join(type_words(hint) for hint in self.types)
        return f"{words} {self.bounds()}".rstrip()


def type_words(hint: Any) -> str:
    """A type as a user would say it."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return "a list of text" if args[0] is str else "a list"
    if origin is Mapping and args[1] is str:
        return "a mapping of text to text"
    return "a mapping"


def _members(hint: Any) -> tuple[tuple[Any, ...], bool]:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(o for o in options if o is not NoneType), NoneType in options


def _block(types: Iterable[Any]) -> type | None:
    for hint in types:
        inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if is_dataclass(inner) and isinstance(inner, type):
            return inner
    return None


def keys(cls: type) -> Mapping[str, Key]:
    """The keys that a block of class `cls` may hold, in the order of their declaration."""
    return _keys(cls)


@cache
def _keys(cls: type) -> Mapping[str, Key]:
    hints = get_type_hints(cls)
    out = {}
    for field in fields(cls):
        types, optional = _members(hints[field.name])
        default = field.default if field.default_factory is MISSING else field.default_factory()
        out[field.name] = Key(
            field.name, types, optional, default, _block(types), **dict(field.metadata)
        )
    return out


def aliases(cls: type) -> Mapping[str, str]:
    """Peers' spelling -> ours, for the keys of `cls`."""
    return _aliases(cls)


@cache
def _aliases(cls: type) -> Mapping[str, str]:
    return {alias: key.name for key in keys(cls).values() for alias in key.aliases}


def canonical(cls: type, name: str) -> str:
    """Our spelling of `name`."""
    return aliases(cls).get(name, name)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most resembles, if any does."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
