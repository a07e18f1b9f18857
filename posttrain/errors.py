"""Every error a user can cause, as one family.

    PosttrainError
    ├── RecipeError        (ValueError)    the YAML: unknown keys, wrong types, contradictions
    ├── DataError          (ValueError)    rows, files, mixtures, chat templates, masks
    ├── VerifierError      (ValueError)    unknown verifier, a ground truth that it cannot read
    ├── ModelError         (ValueError)    checkpoints, tokenizers, adapters
    ├── RunError           (RuntimeError)  the run folder: half written, foreign, no space left
    ├── ServerError        (RuntimeError)  a generation server: not there, not started, refusing
    ├── ProbeError         (RuntimeError)  sampler and trainer do not compute the same
    └── MissingExtraError  (ImportError)   an optional package that is not installed

The command line turns any of them into one readable message and exit status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


class PosttrainError(Exception):
    """Base of the family: something the user can put right."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe.

    Attributes:
        path: where it stands, as `stages[1].dpo.loss.beta`.
        message: what was given, what is allowed, what to change.
        line: 1-based line of the YAML file, or `None` when the value came from elsewhere.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class RecipeError(PosttrainError, ValueError):
    """A recipe that cannot be run. Carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault] | str, origin: str = "") -> None:
        self.faults = [Fault("", faults)] if isinstance(faults, str) else list(faults)
        self.origin = origin
        prefix = f"{origin}: " if origin else ""
        if len(self.faults) == 1:
            text = f"{prefix}{self.faults[0]}"
        else:
            text = f"{prefix}{len(self.faults)} faults\n" + "\n".join(
                f"  - {f}" for f in self.faults
            )
        super().__init__(text)


class DataError(PosttrainError, ValueError):
    """Rows, files, mixtures, chat templates or masks that would make the run meaningless."""


class VerifierError(PosttrainError, ValueError):
    """An unknown verifier, or a ground truth that the verifier cannot read."""


class ModelError(PosttrainError, ValueError):
    """A checkpoint, tokenizer or adapter that cannot be used."""


class RunError(PosttrainError, RuntimeError):
    """A run folder that cannot be used or written."""


class ServerError(PosttrainError, RuntimeError):
    """A generation server that cannot be started or reached, or that refuses what it is asked."""


class ProbeError(PosttrainError, RuntimeError):
    """The engine that samples and the model that is trained do not compute the same."""


class MissingExtraError(PosttrainError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed: "
            f"pip install 'posttrain[{extra}]'"
        )


def first_line(error: BaseException) -> str:
    """The first line of a library's message: the rest is advice about the library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `; did you mean X?` and the names there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(names)})"


def build(what: str, table: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any] | str) -> Any:
    """Make the method that a recipe names: `{name: ..., option: ...}` looked up in a room's table.

    Raises:
        RecipeError: an unknown name, an unknown option or a value the method refuses.
    """
    options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name: Any = options.pop("name", None)
    if name not in table:
        raise RecipeError(f"unknown {what} {name!r}{nearest(str(name), table)}")
    allowed = [f.name for f in fields(table[name])]  # type: ignore[arg-type]
    for option in options:
        if option not in allowed:
            raise RecipeError(f"{what} {name!r} has no option {option!r}{nearest(option, allowed)}")
    try:
        return table[name](**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{what} {name!r}: {error}") from error
