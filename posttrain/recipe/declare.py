"""How a recipe's keys are declared.

`key(default, help, ...)` keeps the help text, the bounds, the choices and the peers' spellings
beside the default, so that the loader, the error messages, `recipes/schema.json` and
`docs/recipes.md` all read the same declaration.
"""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any


def key(
    default: Any = MISSING,
    help: str = "",
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[Any, ...] | None = None,
    aliases: tuple[str, ...] = (),
) -> Any:
    """Declare a recipe key: its default, meaning, bounds, choices and the peers' names for it."""
    metadata = {
        "help": help,
        "above": above,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
        "aliases": aliases,
    }
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
