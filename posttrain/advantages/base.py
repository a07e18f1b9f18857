"""Shapes that every advantage shares, and the two kinds of method.

Legend: P prompts, G completions of each, S = P x G completions, K their tokens in order.

A group method credits whole completions, a token method every token. `per_token` says which one
a method is, and `needs_values` whether it reads a value model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

Reduce = Callable[[torch.Tensor], torch.Tensor]


def alone(total: torch.Tensor) -> torch.Tensor:
    """The sum over all processes where there is but one."""
    return total


@dataclass(frozen=True)
class Credit:
    """Advantages `[K]`, and what the value model should have said, `[K]`, where there is one."""

    advantages: torch.Tensor
    returns: torch.Tensor | None = None


class GroupMethod(ABC):
    """Rewards of groups -> one advantage per completion; its tokens share it."""

    per_token: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, rewards: torch.Tensor, reduce: Reduce = alone) -> torch.Tensor:
        """`[P, G]` -> `[P, G]`.

        Args:
            rewards: of this process's prompts.
            reduce: sums a tensor over the processes, for methods with statistics of the batch.
        """


class TokenMethod(ABC):
    """Rewards of tokens -> an advantage per token."""

    per_token: ClassVar[bool] = True
    needs_values: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self,
        rewards: torch.Tensor,
        tokens: torch.Tensor,
        values: torch.Tensor | None = None,
        reduce: Reduce = alone,
    ) -> Credit:
        """Credit of every token.

        Args:
            rewards: `[K]`, as `token_rewards` makes them.
            tokens: `[S]` how many tokens each completion has, in the order of `rewards`.
            values: `[K]` the value model's estimate before each token was drawn, detached.
            reduce: sums a tensor over the processes: whitening is over the global batch.
        """


def token_rewards(
    scores: torch.Tensor,
    tokens: torch.Tensor,
    kl: torch.Tensor | None = None,
    beta: float = 0.0,
) -> torch.Tensor:
    """-beta kl at every token, and a completion's score on its last one: `[K]`.

    Args:
        scores: `[S]`.
        tokens: `[S]` tokens of each completion.
        kl: `[K]` estimate at every token (`losses.kl`; Tülu 3 takes k1), or `None`.
        beta: its weight.
    """
    rewards = scores.new_zeros(int(tokens.sum())) if kl is None else -beta * kl
    some = tokens > 0
    return rewards.index_add(0, (tokens.cumsum(0) - 1)[some], scores[some].to(rewards.dtype))


def penalised(
    scores: torch.Tensor, tokens: torch.Tensor, kl: torch.Tensor, beta: float
) -> torch.Tensor:
    """Scores `[P, G]` less beta times their completions' summed `kl` `[K]`, for group methods."""
    return scores - beta * to_rows(kl, tokens).sum(1).view_as(scores)


def to_rows(values: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`[K]` values one after another -> `[S, longest]`, a completion per row, zeros behind it."""
    kept = filled(tokens)
    return values.new_zeros(kept.shape).masked_scatter(kept, values)


def from_rows(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_rows`."""
    return rows[filled(tokens)]


def filled(tokens: torch.Tensor) -> torch.Tensor:
    """`[S, longest]` which places of `to_rows` hold a token."""
    longest = int(tokens.max()) if len(tokens) else 0
    return torch.arange(longest, device=tokens.device) < tokens[:, None]


def discounted(rows: torch.Tensor, factor: float) -> torch.Tensor:
    """Sum over what follows, out[t] = sum_k factor^k rows[t + k], in log2(longest) passes."""
    step = 1
    while step < rows.shape[1]:
        later = torch.nn.functional.pad(rows[:, step:], (0, step))
        rows = rows + factor**step * later
        step *= 2
    return rows


def moments(values: torch.Tensor, reduce: Reduce = alone) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance (divisor n - 1) over all processes, in one reduction of doubles."""
    x = values.double().flatten()
    count, total, squares = reduce(torch.stack([x.new_tensor(x.numel()), x.sum(), (x * x).sum()]))
    mean = total / count.clamp(min=1)
    variance = (squares - count * mean**2) / (count - 1).clamp(min=1)
    return mean, variance.clamp(min=0)


def whiten(
    values: torch.Tensor, reduce: Reduce = alone, shift: bool = True, epsilon: float = 1e-8
) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon) over the global batch; `shift=False` keeps the mean."""
    mean, variance = moments(values, reduce)
    centred = (values.double() - mean) * (variance + epsilon).rsqrt()
    return (centred if shift else centred + mean).to(values.dtype)


def without_spread(rewards: torch.Tensor) -> torch.Tensor:
    """`[P, 1]` groups whose rewards are all equal; centring those may leave a rounding behind."""
    return (rewards == rewards[:, :1]).all(dim=1, keepdim=True)


def checked_share(name: str, value: float) -> None:
    """Refuse a discount outside 0 to 1.

    Raises:
        ValueError: naming the option.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}; allowed is 0 <= x <= 1")
