"""GAE over macro actions (MA-RLHF: Chai et al. 2024, arXiv:2410.02743).

A completion is cut into runs of `size` tokens. A run's reward and value are the means over its
tokens; GAE goes from run to run, and every token gets the advantage and the return of its run. The
last token is a run of its own, so that the score which stands on it is not averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.advantages.base import Credit, Reduce, alone, whiten
from posttrain.advantages.gae import GAE


@dataclass(frozen=True)
class MacroGAE(GAE):
    """Runs of 5 tokens and no whitening are the paper's; `size` 1 is GAE."""

    whiten: bool = False
    size: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size: got {self.size}; a run has 1 token or more")

    def __call__(
        self,
        rewards: torch.Tensor,
        tokens: torch.Tensor,
        values: torch.Tensor | None = None,
        reduce: Reduce = alone,
    ) -> Credit:
        if values is None:
            raise ValueError("MacroGAE needs the values of a value model")
        run, runs = cut(tokens, self.size)
        mean_rewards, mean_values = (means(x, run, int(runs.sum())) for x in (rewards, values))
        advantages = self.estimate(mean_rewards, runs, mean_values)
        returns = (advantages + mean_values)[run]
        advantages = advantages[run]
        return Credit(whiten(advantages, reduce) if self.whiten else advantages, returns)


def cut(tokens: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The run of every token, `[K]`, counted over all completions; and runs per completion `[S]`.

    Args:
        tokens: `[S]` tokens of each completion.
        size: tokens of a run.
    """
    before_last = (tokens - 1).clamp(min=0)
    runs = (before_last + size - 1) // size + (tokens > 0).long()
    completion = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens)
    place = torch.arange(len(completion), device=tokens.device)
    place = place - (tokens.cumsum(0) - tokens)[completion]
    last = place == before_last[completion]
    mine = torch.where(last, runs[completion] - 1, place // size)
    return (runs.cumsum(0) - runs)[completion] + mine, runs


def means(values: torch.Tensor, run: torch.Tensor, num: int) -> torch.Tensor:
    """Mean of the `[K]` values of each run, `[num]`."""
    count = torch.bincount(run, minlength=num).to(values.dtype)
    return values.new_zeros(num).index_add(0, run, values) / count
