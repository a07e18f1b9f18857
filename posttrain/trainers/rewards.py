"""Scores of completions: verifiers by name, and TRL's reward functions unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from posttrain.errors import DataError
from posttrain.generation.local import Completion
from posttrain.verifiers import get_verifier, verify

RewardFunction = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Rewards:
    """Sums the scores of several functions; `None` means "does not apply" and counts as 0.

    Attributes:
        functions: verifier names or TRL-style functions; empty: each row's own verifier.
    """

    functions: tuple[str | RewardFunction, ...] = ()

    @classmethod
    def of(cls, value: str | RewardFunction | Sequence[str | RewardFunction] | None) -> Rewards:
        if value is None:
            value = ()
        elif isinstance(value, str) or callable(value):
            value = (value,)
        functions = tuple(value)
        for function in functions:
            if isinstance(function, str):
                get_verifier(function)
        return cls(functions)

    @property
    def defaults(self) -> dict[str, str]:
        """What a row may leave out: functions need no verifier, nor a ground truth to give it."""
        named = [f for f in self.functions if isinstance(f, str)]
        if named:
            return {"verifier": named[0]}
        return {"verifier": "reward_funcs", "ground_truth": ""} if self.functions else {}

    def __call__(
        self,
        rows: Sequence[dict[str, Any]],
        texts: Sequence[Sequence[str]],
        completions: Sequence[Sequence[Completion]],
        **extras: Any,
    ) -> torch.Tensor:
        """`[P, G]` scores of G completions of each of P problems; functions also see `extras`."""
        total = torch.zeros(len(rows), len(texts[0]) if texts else 0)
        if not rows:  # the last, partial batch may leave a process without prompts
            return total
        for function in self.functions or (None,):
            if callable(function):
                total += self.called(function, rows, texts, completions, extras)
            else:
                total += torch.tensor(
                    [
                        [score(function, row, text) for text in group]
                        for row, group in zip(rows, texts, strict=True)
                    ]
                )
        return total

    def called(
        self,
        function: RewardFunction,
        rows: Any,
        texts: Any,
        completions: Any,
        extras: dict[str, Any],
    ) -> torch.Tensor:
        """Scores of a TRL-style function, which sees the whole batch and every column as a list."""
        size = len(texts[0])
        repeated = [row for row in rows for _ in range(size)]
        prompts = [
            json.loads(row["prompt"]) if isinstance(row["prompt"], str) else row["prompt"]
            for row in repeated
        ]
        answers = [[{"role": "assistant", "content": text}] for group in texts for text in group]
        columns = {
            k: [row[k] for row in repeated]
            for k in repeated[0]
            if k not in ("prompt", "prompt_ids", "index", *extras)
        }
        ids = [c.ids for group in completions for c in group]
        out = function(
            prompts=prompts, completions=answers, completion_ids=ids, **columns, **extras
        )
        if len(out) != len(answers):
            name = getattr(function, "__name__", repr(function))
            raise DataError(
                f"reward function {name} returned {len(out)} scores for {len(answers)} completions"
            )
        return torch.tensor([0.0 if s is None else float(s) for s in out]).view(len(rows), size)


def score(verifier: str | None, row: dict[str, Any], text: str) -> float:
    """One completion against its row."""
    return verify(verifier or row["verifier"], text, row["ground_truth"]).score
