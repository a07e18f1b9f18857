"""How values travel between judge and candidate: plain data by value, the rest by reference.

One message is a length and JSON. Nothing that arrives is ever run: a list is a list, and what JSON
has no word for is an object with one key, its kind.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import os
import struct
import types
from collections.abc import Callable
from typing import Any

MAX_BYTES = 32 << 20
_SMALL = 1 << 62

_TYPES: tuple[type, ...] = (
    bool, bytes, complex, dict, float, frozenset, int, list, object, range, set, str, tuple, type,
    types.NoneType,
)  # fmt: skip
TYPES: dict[str, type] = {kind.__name__: kind for kind in _TYPES}

# kind: (type, value -> parts that are plain data themselves, parts -> value)
_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, list, tuple),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "deque": (collections.deque, list, collections.deque),
    "counter": (collections.Counter, lambda v: [list(p) for p in v.items()], lambda v: _counter(v)),
    "ordered": (
        collections.OrderedDict,
        lambda v: [list(p) for p in v.items()],
        lambda v: collections.OrderedDict(v),
    ),
    "dict": (dict, lambda v: [list(p) for p in v.items()], lambda v: dict(v)),
    "keys": (type({}.keys()), list, lambda v: dict.fromkeys(v).keys()),
    "values": (type({}.values()), list, lambda v: dict(enumerate(v)).values()),
    "items": (type({}.items()), lambda v: [list(p) for p in v], lambda v: dict(v).items()),
    "float": (float, repr, float),
    "int": (int, hex, lambda v: int(v, 16)),
    "complex": (complex, lambda v: [v.real, v.imag], lambda v: complex(*v)),
    "bytes": (bytes, lambda v: v.decode("latin-1"), lambda v: v.encode("latin-1")),
    "bytearray": (
        bytearray,
        lambda v: v.decode("latin-1"),
        lambda v: bytearray(v.encode("latin-1")),
    ),
    "range": (range, lambda v: [v.start, v.stop, v.step], lambda v: range(*v)),
    "ellipsis": (type(...), lambda v: 0, lambda v: ...),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (
        fractions.Fraction,
        lambda v: [v.numerator, v.denominator],
        lambda v: fractions.Fraction(*v),
    ),
    "datetime": (
        datetime.datetime,
        datetime.datetime.isoformat,
        datetime.datetime.fromisoformat,
    ),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (
        datetime.timedelta,
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda v: datetime.timedelta(*v),
    ),
}
_BY_TYPE = {kind: name for name, (kind, _, _) in _KINDS.items()}
# A subclass counts as the first of these that it descends from.
_BASES = (
    int, float, complex, str, bytes, collections.Counter, collections.OrderedDict, dict, list,
    tuple, set, frozenset, collections.deque,
)  # fmt: skip


def _counter(pairs: Any) -> Any:
    return collections.Counter(dict(pairs))


def encode(value: Any, refer: Callable[[Any], Any], exact: bool = False) -> Any:
    """JSON for a value; `refer` gives that of what is not plain data.

    Args:
        exact: subclasses of plain types go by reference at the top level.
    """
    kind: type = type(value)
    if value is None or kind is bool or kind is str or (kind is int and abs(value) < _SMALL):
        return value
    if kind is list:
        return [encode(item, refer) for item in value]
    if kind in _BY_TYPE:
        return {_BY_TYPE[kind]: _encode_parts(_KINDS[_BY_TYPE[kind]][1](value), refer)}
    name = getattr(value, "__name__", "") if kind is type else ""
    if name in TYPES and TYPES[name] is value:
        return {"type": name}
    base = next((base for base in _BASES if isinstance(value, base)), None)
    if base is None or exact:
        return refer(value)
    if base is str:
        return str.__str__(value)
    return encode(base(value), refer)


def _encode_parts(parts: Any, refer: Callable[[Any], Any]) -> Any:
    if isinstance(parts, float):
        return parts
    return [encode(item, refer) for item in parts] if isinstance(parts, list) else parts


def decode(value: Any, resolve: Callable[[Any], Any]) -> Any:
    """The value that JSON stands for; `resolve` makes a stand-in for a reference.

    Raises:
        ValueError, TypeError, KeyError: it stands for none.
    """
    if isinstance(value, list):
        return [decode(item, resolve) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "type":
        return TYPES[parts]
    if kind in _KINDS:
        parts = decode(parts, resolve) if isinstance(parts, list) else parts
        return _KINDS[kind][2](parts)
    return resolve(value)


class Channel:
    """Messages over two file descriptors."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        if len(data) > MAX_BYTES:
            raise ValueError(f"a message of {len(data)} bytes")
        data = struct.pack("!I", len(data)) + data
        while data:
            data = data[os.write(self.writing, data) :]

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: the other side is gone.
            ValueError: what came is no message.
        """
        (length,) = struct.unpack("!I", self._read(4))
        if length > MAX_BYTES:
            raise ValueError(f"a message of {length} bytes")
        return json.loads(self._read(length))

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            part = os.read(self.reading, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
