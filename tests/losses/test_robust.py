"""Robust DPO, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps
from posttrain.losses.dpo import DPO
from posttrain.losses.robust import RobustDPO


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (3, 2)) -> PairLogps:
    sums = (torch.tensor([value], requires_grad=True) for value in (chosen, rejected))
    return PairLogps(*sums, *(torch.tensor([n]) for n in tokens))


ZERO = pair(0.0, 0.0)


def test_value() -> None:
    # -log sigmoid(0.1) = 0.644397, -log sigmoid(-0.1) = 0.744397
    # (0.9 * 0.644397 - 0.1 * 0.744397) / 0.8
    out = RobustDPO(beta=0.1, label_smoothing=0.1)(pair(0.6, -0.4), ZERO)
    assert out.losses.item() == pytest.approx(0.631897, abs=1e-6)
    assert out.chosen_rewards.item() == pytest.approx(0.06)


def test_flipped_labels_cancel_in_expectation() -> None:
    # a share of 0.2 of the pairs is the wrong way round: the mean is DPO's loss on the true order
    loss = RobustDPO(beta=0.5, label_smoothing=0.2)
    true, flipped = (loss(p, ZERO).losses for p in (pair(2.0, -1.0), pair(-1.0, 2.0)))
    mean = 0.8 * true + 0.2 * flipped
    assert mean.item() == pytest.approx(DPO(beta=0.5)(pair(2.0, -1.0), ZERO).losses.item())


def test_without_flips_it_is_dpo() -> None:
    ours = RobustDPO(beta=0.3, label_smoothing=0.0)(pair(0.6, -0.4), ZERO).losses
    assert torch.equal(ours, DPO(beta=0.3)(pair(0.6, -0.4), ZERO).losses)


def test_half_of_the_labels_say_nothing() -> None:
    with pytest.raises(RecipeError, match=r"allowed is 0 <= x < 0\.5"):
        preference_loss({"name": "robust", "label_smoothing": 0.5})
