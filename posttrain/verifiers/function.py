"""Any Python function, or reward function in TRL's form, as a verifier.

Plain: `(completion, ground_truth, **row)`, or fewer of these, -> number, bool, `Verdict` or `None`.
TRL's: `(prompts, completions, **columns)`, every value a list, -> a list of numbers or `None`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError, first_line
from posttrain.formats import Verdict


@dataclass(frozen=True)
class Function:
    """A function's value as the score; `None` means that it has nothing to say of the row."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", self.function))

    def check_ground_truth(self, ground_truth: Any) -> None:
        """A function may make of its ground truth what it likes."""

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        try:
            parameters: Mapping[str, Any] = inspect.signature(self.function).parameters
        except ValueError:  # some built-in functions tell of none
            parameters = {}
        if "completions" in parameters or "prompts" in parameters:
            value = self._as_trl(completion, ground_truth, row)
        else:
            value = self._plainly(completion, ground_truth, row, parameters)
        if isinstance(value, Verdict):
            return value
        if value is None:
            return Verdict(0.0, f"{self.name} does not apply", applies=False)
        try:
            return Verdict(float(value), f"{self.name} returns {float(value):g}")
        except (TypeError, ValueError) as error:
            raise VerifierError(
                f"{self.name} must return a number, a Verdict or None, got {value!r}"
            ) from error

    def _plainly(self, completion: str, truth: Any, row: dict[str, Any], parameters: Any) -> Any:
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = {**row, "ground_truth": truth}
        names = list(parameters)[1:]
        named = {k: v for k, v in known.items() if takes_all or k in names}
        given = [p for p in parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
        if len(given) > 1 and given[1].name not in known and given[1].default is given[1].empty:
            named.pop("ground_truth", None)  # it has another name for it
            return self.function(completion, truth, **named)
        return self.function(completion, **named)

    def _as_trl(self, completion: str, truth: Any, row: dict[str, Any]) -> Any:
        """A batch of one. Conversations where the prompt is one, as TRL hands them over."""
        prompt = row.pop("prompt", "")
        answer: Any = completion
        if isinstance(prompt, list):
            answer = [{"role": "assistant", "content": completion}]
        columns = {key: [value] for key, value in {**row, "ground_truth": truth}.items()}
        columns.setdefault("completion_ids", [[]])
        values = self.function(prompts=[prompt], completions=[answer], **columns)
        if not isinstance(values, Sequence) or len(values) != 1:
            raise VerifierError(f"{self.name} must return one value per completion, got {values!r}")
        return values[0]


def from_path(path: Any) -> Function:
    """The function at `module:name`, as a recipe names it.

    Raises:
        VerifierError: there is none.
    """
    module, _, name = str(path).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise VerifierError(
            f"no function {path!r}: {first_line(error)}; write it as module:name, with the module"
            " on the import path"
        ) from error
    if not callable(found):
        raise VerifierError(f"{path!r} is not a function but {type(found).__name__}")
    return Function(found)
