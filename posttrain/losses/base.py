"""Shapes and reductions that every loss shares.

Legend: B pairs, K trained tokens of a packed batch, S sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from posttrain.losses.kl import KL_ESTIMATORS, checked_estimator

if TYPE_CHECKING:
    from posttrain.losses.importance import Correction


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities of both answers of B pairs, and how many tokens they have.

    Attributes:
        chosen, rejected: `[B]` sum of log-probs over the trained tokens.
        chosen_tokens, rejected_tokens: `[B]` counts of those tokens.
        chosen_shared, rejected_shared: `[B]` the part of those sums that the first
            min(chosen_tokens, rejected_tokens) tokens make up; for losses with `needs_shared`.
        chosen_collision, rejected_collision: `[B]` sum over the trained tokens of
            log sum_v pi(v)^2, without a gradient; for losses with `needs_collision`.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    chosen_shared: torch.Tensor | None = None
    rejected_shared: torch.Tensor | None = None
    chosen_collision: torch.Tensor | None = None
    rejected_collision: torch.Tensor | None = None


@dataclass(frozen=True)
class PairLoss:
    """What a preference loss returns, all `[B]`: the loss and the implicit rewards it optimises."""

    losses: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor


class PreferenceLoss(ABC):
    """Log-probs of pairs -> a loss per pair.

    Attributes:
        needs_reference: whether it compares with a reference policy.
        needs_shared, needs_collision: whether it reads those fields of `PairLogps`.
    """

    needs_reference: bool = True
    needs_shared: bool = False
    needs_collision: bool = False

    @abstractmethod
    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> PairLoss:
        """Loss and rewards of every pair, `[B]` each, unreduced."""


@dataclass(frozen=True)
class TokenLogps:
    """Log-probabilities of K sampled tokens under up to four policies.

    Attributes:
        policy: `[K]` the policy being trained.
        old: `[K]` the policy that sampled, as the trainer computes it, detached.
        reference: `[K]` the stage's start, or `None` without a KL term.
        sampler: `[K]` the policy that sampled, as the engine that sampled reported it: read where
            a loss has an `importance` correction. NaN: it did not say.
        segment: `[K]` completion of each token.
        tokens: `[S]` how many tokens each completion has.
    """

    policy: torch.Tensor
    old: torch.Tensor
    reference: torch.Tensor | None = None
    sampler: torch.Tensor | None = None
    segment: torch.Tensor | None = None
    tokens: torch.Tensor | None = None

    def completions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`segment` and `tokens`, for what looks at whole completions.

        Raises:
            ValueError: they were not given.
        """
        if self.segment is None or self.tokens is None:
            raise ValueError("TokenLogps needs segment and tokens for a ratio per sequence")
        return self.segment, self.tokens


@dataclass(frozen=True, kw_only=True)
class PolicyLoss(ABC):
    """Log-probs and advantages -> a loss per token, unreduced.

        loss_t = weight_t surrogate_t + beta kl_t

    Attributes:
        reduction: the one of the method's paper (see `token_weights`).
        kl: estimator of the KL term, k1, k2 or k3 (see `losses.kl`).
        unbiased_kl: weigh that term by pi / pi_old, so that its mean and gradient are right when
            the policy has moved since it sampled (DeepSeek-V3.2, arXiv:2512.02556).
        importance: corrects for a sampler whose probabilities are not quite the trainer's.
    """

    reduction: ClassVar[str] = "token_mean"

    kl: str = "k3"
    unbiased_kl: bool = False
    importance: Correction | None = None

    def __post_init__(self) -> None:
        checked_estimator(self.kl)

    def __call__(
        self, logps: TokenLogps, advantages: torch.Tensor, beta: float = 0.0
    ) -> torch.Tensor:
        """Loss per token.

        Args:
            logps: `[K]` each.
            advantages: `[K]` the advantage of each token, or of its completion.
            beta: weight of the KL term; without a reference there is none.
        """
        losses = self.surrogate(logps, advantages)
        if self.importance is not None and logps.sampler is not None:
            losses = losses * self.importance(logps)
        if beta and logps.reference is not None:
            losses = losses + beta * self.divergence(logps, logps.reference)
        return losses

    def divergence(self, logps: TokenLogps, reference: torch.Tensor) -> torch.Tensor:
        """The KL term, `[K]`."""
        kl = KL_ESTIMATORS[self.kl](logps.policy - reference)
        return kl * (logps.policy - logps.old).exp() if self.unbiased_kl else kl

    @abstractmethod
    def surrogate(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        """The term that the policy gradient comes from, `[K]`."""

    def clipped(self, logps: TokenLogps, advantages: torch.Tensor) -> torch.Tensor:
        """`[K]` tokens whose ratio is out of bounds on the side where that has an effect."""
        return torch.zeros_like(advantages, dtype=torch.bool)


def log_ratios(
    policy: PairLogps, reference: PairLogps | None, per_token: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """d = log pi - log pi_ref of chosen and rejected, `[B]` each.

    Args:
        reference: `None` counts as zero, for losses without a reference.
        per_token: divide by the trained tokens of the answer.
    """
    chosen, rejected = policy.chosen, policy.rejected
    if reference is not None:
        chosen, rejected = chosen - reference.chosen, rejected - reference.rejected
    if per_token:
        chosen = chosen / policy.chosen_tokens.clamp(min=1)
        rejected = rejected / policy.rejected_tokens.clamp(min=1)
    return chosen, rejected


def rewarded(
    losses: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor, beta: float
) -> PairLoss:
    """The losses, with beta times the quantities that they compare as the implicit rewards."""
    return PairLoss(losses, beta * chosen.detach(), beta * rejected.detach())


def positive_beta(loss: str, beta: float) -> None:
    """Refuse a beta that is not above 0.

    Raises:
        ValueError: naming the loss.
    """
    if not beta > 0:
        raise ValueError(f"beta: got {beta}; {loss} needs beta > 0")


def flip_probability(value: float) -> None:
    """Refuse a probability of flipped preferences of one half or more.

    Raises:
        ValueError: naming the option.
    """
    if not 0 <= value < 0.5:
        raise ValueError(f"label_smoothing: got {value}; allowed is 0 <= x < 0.5")


def segment_sum(values: torch.Tensor, segment: torch.Tensor, num: int) -> torch.Tensor:
    """Sum `[K]` values per sequence: `[num]`."""
    return values.new_zeros(num).index_add(0, segment, values)


def within_shared(segment: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Which tokens are among the first n of their answer, n the shorter answer's: `[K]`.

    Args:
        segment: `[K]` answer of each token, ascending; answers 2i and 2i + 1 are a pair.
        tokens: `[S]` trained tokens per answer.
    """
    place = torch.arange(len(segment), device=segment.device) - (tokens.cumsum(0) - tokens)[segment]
    shorter = tokens.view(-1, 2).amin(1).repeat_interleave(2)
    return place < shorter[segment]


def token_weights(tokens: torch.Tensor, segment: torch.Tensor, reduction: str) -> torch.Tensor:
    """Weight of each trained token under a reduction, `[K]`; `num_items` is its denominator.

    `sequence_mean` weighs by 1 / (tokens of the sequence), every other one weighs tokens alike.
    """
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
    ones = torch.ones_like(segment, dtype=dtype)
    return ones / tokens[segment] if reduction == "sequence_mean" else ones


def num_items(tokens: torch.Tensor, reduction: str, max_length: int = 1) -> torch.Tensor:
    """This micro-batch's part of the loss denominator: trained tokens, or sequences that have any.

    `sum` is "summed over tokens, averaged over the batch's sequences": what Tülu 3's command
    computes at one sequence per forward pass (arXiv:2411.15124, section 4.3.2). `max_length`
    divides that by the tokens that a sequence may have, a constant (Dr. GRPO, arXiv:2503.20783).
    """
    if reduction == "token_mean":
        return tokens.sum().float()
    sequences = (tokens > 0).sum().float()
    return sequences * max_length if reduction == "max_length" else sequences
