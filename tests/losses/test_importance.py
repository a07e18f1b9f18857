"""Corrections between sampler and trainer, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps
from posttrain.losses.importance import Mask, Truncate

OLD = torch.tensor([-1.0, -2.0, -3.0, -4.0])


def logps(ratios: list[float]) -> TokenLogps:
    return TokenLogps(
        OLD + 9,
        OLD,
        sampler=OLD - torch.tensor(ratios).log(),
        segment=torch.tensor([0, 0, 1, 1]),
        tokens=torch.tensor([2, 2]),
    )


def test_truncated() -> None:
    weights = Truncate(cap=2.0)(logps([0.1, 1.0, 1.9, 50.0]))
    assert weights.tolist() == pytest.approx([0.1, 1.0, 1.9, 2.0], abs=1e-5)


def test_masked() -> None:
    weights = Mask(low=0.5, high=5.0)(logps([0.1, 0.6, 4.9, 50.0]))
    assert weights.tolist() == pytest.approx([0.0, 0.6, 4.9, 0.0], abs=1e-5)


def test_a_ratio_for_the_whole_completion() -> None:
    batch = logps([2.0, 3.0, 0.5, 0.5])
    weights = Truncate(level="sequence", cap=4.0)(batch)
    assert weights.tolist() == pytest.approx([4.0, 4.0, 0.25, 0.25], abs=1e-5)
    assert Mask(level="sequence")(batch).tolist() == [0.0] * 4


def test_a_token_that_the_sampler_did_not_score_is_taken_as_it_is() -> None:
    weights = Truncate()(logps([math.nan, 1.5, 1.0, 1.0]))
    assert weights.tolist() == pytest.approx([1.0, 1.5, 1.0, 1.0], abs=1e-5)


def test_no_gradient_passes() -> None:
    old = OLD.clone().requires_grad_()
    assert not Truncate()(TokenLogps(OLD, old, sampler=OLD - 0.1)).requires_grad


def test_the_mean_weight_under_the_sampler_is_one() -> None:
    """Untruncated, the weighted sampler is the trainer: its tokens' mean is the trainer's."""
    trainer, sampler = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]).log()
    weights = Truncate(cap=100.0)(TokenLogps(trainer, trainer, sampler=sampler))
    assert (sampler.exp() * weights).tolist() == pytest.approx(trainer.exp().tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "truncate", "level": "row"}, "level: got 'row'; allowed are token, sequence"),
        ({"name": "mask", "low": 2, "high": 1}, "needed is 0 <= low < high"),
        ({"name": "truncate", "capp": 2}, "no option 'capp'; did you mean 'cap'"),
    ],
)
def test_user_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        policy_loss({"name": "grpo", "importance": options})
