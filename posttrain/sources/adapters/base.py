"""What adapters share: reading the fields of a raw row, and rows left out on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import shown

PLACE = "__place__"  # the field in which a stream's rows say where they stand


class LeftOut(DataError):
    """A sound row that the format does not use (a tie, another language, a template that does not
    apply): counted with its reason like any drop, but no fault of the file.
    """


def value(raw: Any, field: str) -> Any:
    """A field of a raw row; `None` where it is absent.

    Raises:
        DataError: the row is no object.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"a row must be an object with named fields, got {shown(raw)}")
    return raw.get(field)


def text(raw: Any, field: str) -> str:
    """A field that must hold text (a whole number is written out)."""
    found = value(raw, field)
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 10**18:
        return str(found)
    if not isinstance(found, str):
        raise DataError(
            f"the row needs text in `{field}`, got {shown(found)} among the fields"
            f" {shown(sorted(map(str, raw)))}"
        )
    return found


def maybe_text(raw: Any, field: str) -> str:
    """A field that may be null or absent, which is as good as empty."""
    found = value(raw, field)
    if found is None or found != found:  # NaN is what tables put where nothing is
        return ""
    return text(raw, field)


def items(raw: Any, field: str) -> list[Any]:
    """A field that must hold a list with something in it."""
    found = value(raw, field)
    if not isinstance(found, (list, tuple)) or not found:
        raise DataError(f"the row needs a list in `{field}`, got {shown(found)}")
    return list(found)


def dice(*parts: Any) -> Random:
    """Random numbers that these parts decide, whatever characters are in them."""
    return Random("/".join(map(str, parts)).encode(errors="surrogatepass"))


def joined(raw: Any, fields: Sequence[str]) -> str:
    """The fields that say something, with a blank line between them; the first must be there."""
    parts = [text(raw, fields[0]), *(maybe_text(raw, field) for field in fields[1:])]
    return "\n\n".join(part for part in parts if part.strip())


def as_where(given: Any) -> dict[str, tuple[Any, ...]]:
    """The option `where`: column -> the values that a row may have there.

    Raises:
        TypeError: it is no mapping.
    """
    if not isinstance(given, Mapping):
        raise TypeError("`where` must map columns to values, as in {dataset: flan_v2}")
    return {
        str(column): tuple(wanted) if isinstance(wanted, (list, tuple)) else (wanted,)
        for column, wanted in given.items()
    }


def require(raw: Any, where: Mapping[str, Any]) -> None:
    """Leave out a row whose columns do not have the values asked for."""
    for column, wanted in where.items():
        if value(raw, column) not in wanted:
            raise LeftOut(f"`{column}` is not as asked for, got {shown(value(raw, column))}")


def names(given: str | Sequence[str]) -> Sequence[str]:
    """One name or several, as several."""
    return (given,) if isinstance(given, str) else given
