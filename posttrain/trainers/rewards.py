"""Scores of completions: verifiers by name, reward models, and TRL's reward functions unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from posttrain.errors import DataError, RecipeError, VerifierError
from posttrain.generation.local import Completion
from posttrain.models import check_checkpoint
from posttrain.trainers.scorer import Scorer, load_reward_model
from posttrain.verifiers import UNVERIFIED, get_verifier, verify

RewardFunction = Callable[..., list[float | None]]
OWN = "verifier"  # the one that each row names


@dataclass(frozen=True)
class RewardModel:
    """A reward model as a reward function: all completions of a batch, each prompt forwarded once.

    Conversations are written with the reward model's own tokenizer and template, so a completion
    that was cut off is read as if it had ended; `missing_eos_reward` speaks of those.
    """

    scorer: Scorer

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> RewardModel:
        """From a checkpoint's folder or hub id, or a loaded model with a `score` head.

        Raises:
            ModelError: no such checkpoint.
        """
        if isinstance(model, str):
            check_checkpoint(model)
            return cls(load_reward_model(model))
        if torch.cuda.is_available():
            model = model.to(PartialState().device)
        return cls(Scorer.of(model, tokenizer))

    @property
    def __name__(self) -> str:
        """Its folder's name; of a stage's model the stage's."""
        parts = Path(self.scorer.model.config._name_or_path).parts
        return parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]

    def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float | None]:
        """TRL's signature; completions of one prompt that follow each other share its pass."""
        rows: list[dict[str, Any]] = []
        for prompt, completion in zip(prompts, completions, strict=True):
            if not rows or rows[-1]["prompt"] != prompt:
                rows.append({"prompt": prompt, "answers": []})
            rows[-1]["answers"].append(completion[-1])
        return [score for scores in self.scorer(rows) for score in scores]


@dataclass(frozen=True)
class Rewards:
    """Sums the scores of several functions; `None` means "does not apply" and counts as 0.

    Attributes:
        functions: verifier names (`verifier`: each row's own) or TRL-style functions; empty: each
            row's own verifier.
        weights: factor of each function; empty: 1.
    """

    functions: tuple[str | RewardFunction, ...] = ()
    weights: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        value: str | RewardFunction | Sequence[str | RewardFunction] | None,
        weights: Sequence[float] | None = None,
    ) -> Rewards:
        """From names of verifiers, functions, and reward models by path, hub id or loaded.

        Raises:
            RecipeError: as many weights as functions were not given.
        """
        if value is None:
            value = ()
        elif isinstance(value, str) or callable(value):
            value = (value,)
        if weights and len(weights) != len(value):
            raise RecipeError(
                f"reward_weights: got {len(weights)} for {len(value)} of `reward_funcs`; give one"
                " for each"
            )
        return cls(tuple(one(function) for function in value), tuple(weights or ()))

    @property
    def names(self) -> tuple[str, ...]:
        """What each function is called in metrics; equal names are numbered."""
        names: list[str] = []
        for function in self.functions:
            name = function if isinstance(function, str) else getattr(function, "__name__", "")
            name = name or type(function).__name__
            same = sum(n == name or n.startswith(f"{name}-") for n in names)
            names.append(f"{name}-{same + 1}" if same else name)
        return tuple(names)

    @property
    def defaults(self) -> dict[str, str]:
        """What a row may leave out: functions need no verifier, nor a ground truth to give it."""
        named = [f for f in self.functions if isinstance(f, str)]
        if OWN in named:
            return {}
        if named:
            return {"verifier": named[0]}
        return {"verifier": UNVERIFIED, "ground_truth": ""} if self.functions else {}

    @property
    def verifiers(self) -> dict[int, str]:
        """Number of a function -> its name, of those that are verifiers."""
        functions = self.functions or (OWN,)
        return {i: f for i, f in enumerate(functions) if isinstance(f, str)}

    def __call__(
        self,
        rows: Sequence[dict[str, Any]],
        texts: Sequence[Sequence[str]],
        completions: Sequence[Sequence[Completion]],
        **extras: Any,
    ) -> torch.Tensor:
        """`[P, G]` weighted sums of the scores of G completions of each of P problems."""
        return self.weighted(self.each(rows, texts, completions, **extras))

    def weighted(self, scores: torch.Tensor) -> torch.Tensor:
        """`[F, P, G]` scores of every function -> `[P, G]`."""
        weights = torch.tensor(self.weights or [1.0] * len(scores))
        return (scores * weights.view(-1, 1, 1)).sum(0)

    def verdicts(self, scores: torch.Tensor) -> torch.Tensor:
        """`[F, P, G]` -> the part that verifiers gave; where there is none, all."""
        chosen = [i for i, f in enumerate(self.functions) if isinstance(f, str)]
        return scores[chosen] if chosen else scores

    def each(
        self,
        rows: Sequence[dict[str, Any]],
        texts: Sequence[Sequence[str]],
        completions: Sequence[Sequence[Completion]],
        known: Mapping[int, torch.Tensor] | None = None,
        **extras: Any,
    ) -> torch.Tensor:
        """`[F, P, G]` scores by every function; functions also see `extras`.

        Args:
            known: `[P, G]` scores that are there already, by the number of the function.
        """
        functions = self.functions or (OWN,)
        if not rows:  # the last, partial batch may leave a process without prompts
            return torch.zeros(len(functions), 0, 0)
        found = []
        for number, function in enumerate(functions):
            if known is not None and number in known:
                found.append(known[number])
                continue
            if callable(function):
                found.append(self.called(function, rows, texts, completions, extras))
                continue
            verifier = None if function == OWN else function
            groups = zip(rows, texts, strict=True)
            values = [[score(verifier, row, text) for text in group] for row, group in groups]
            found.append(torch.tensor(values))
        return torch.stack(found)

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


def one(function: str | RewardFunction) -> str | RewardFunction:
    """A verifier's name or a function as it is, a reward model (any other path) as a function.

    Raises:
        VerifierError: a name that is neither a verifier nor a path.
        ModelError: a path without a model.
    """
    if isinstance(function, torch.nn.Module):
        return RewardModel.of(function)
    if not isinstance(function, str) or function == OWN:
        return function
    if "/" in function:
        return RewardModel.of(function)
    try:
        get_verifier(function)
    except VerifierError:
        if not Path(function).is_dir():
            raise
        return RewardModel.of(function)
    return function
