"""What every generation engine is given and gives back. No engine is named here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from posttrain.errors import RecipeError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop.

    Attributes:
        max_new_tokens: at most so many, the EOS included.
        temperature: the logits are divided by it; 0 is greedy.
        top_p: keep the most probable tokens up to the one that reaches this mass
            (arXiv:1904.09751).
        top_k: keep so many of the most probable tokens, before `top_p`; 0 keeps all.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        for name, right, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or more"),
        ):
            if not right:
                raise RecipeError(f"{name}: {getattr(self, name)} must be {allowed}")


@dataclass(frozen=True)
class Completion:
    """One answer.

    Attributes:
        ids: its tokens; the EOS is kept.
        finished: whether it ends with EOS, not at `max_new_tokens`.
        logps: fp32 log-prob of each token at the sampling temperature (1 where that is 0) over the
            whole vocabulary: what a trainer computes for it. `top_p` and `top_k` change which
            token is drawn, not its log-prob.
        version: of the weights that it comes from, where they are somewhere else than the
            trainer's.
    """

    ids: list[int]
    finished: bool
    logps: list[float] = field(default_factory=list, compare=False)
    version: int | None = field(default=None, compare=False)


OnGroup = Callable[[int, list[Completion]], None]


def ignore(index: int, group: list[Completion]) -> None:
    """What is done with a finished group by default: nothing."""


class Engine(Protocol):
    """Prompts in, answers out.

    A draw depends on the seed, the number of the prompt and the number of the answer and on nothing
    else: not on the other prompts, their order, or how many are completed at a time.

    Args:
        prompts: token ids, none empty.
        sampling: see `Sampling`.
        num_generations: answers per prompt.
        seed: of the draw.
        numbers: what each prompt is called in the draw; by default its index.
        on_group: called with the index of a prompt and its answers as soon as all have ended,
            while others are still being completed.

    Returns:
        Per prompt its answers, in the order given.
    """

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        num_generations: int = 1,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        on_group: OnGroup = ignore,
    ) -> list[list[Completion]]: ...
