"""PPO's clipped surrogate, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps
from posttrain.losses.importance import Truncate
from posttrain.losses.ppo import PPO

OLD = torch.tensor([-1.0, -2.0, -3.0])


def logps(ratios: list[float], **more: torch.Tensor) -> TokenLogps:
    return TokenLogps((OLD + torch.tensor(ratios).log()).requires_grad_(), OLD, **more)


def test_clipping() -> None:
    losses = PPO()(logps([1.5, 0.5, 1.1]), torch.tensor([1.0, 1.0, -1.0]))
    assert losses.tolist() == pytest.approx([-1.2, -0.5, 1.1], abs=1e-6)
    assert losses.mean().item() == pytest.approx(-0.2, abs=1e-6)


def test_the_two_bounds_are_separate() -> None:
    loss = PPO(epsilon=0.1, epsilon_high=0.4)
    assert loss(logps([1.5, 1.3, 0.5]), torch.ones(3)).tolist() == pytest.approx([-1.4, -1.3, -0.5])
    assert loss(logps([1.5, 0.8, 0.95]), -torch.ones(3)).tolist() == pytest.approx([1.5, 0.9, 0.95])


def test_a_second_clip_bounds_the_loss_of_a_bad_token() -> None:
    batch = logps([5.0, 2.0, 5.0])
    losses = PPO(dual_clip=3.0)(batch, torch.tensor([-1.0, -1.0, 1.0]))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([3.0, 2.0, -1.2])
    assert batch.policy.grad.tolist() == pytest.approx([0.0, 2.0, 0.0])


def test_clipped_tokens_are_those_without_a_gradient() -> None:
    loss = PPO(epsilon_high=0.4, dual_clip=3.0)
    for sign in (1.0, -1.0):
        for ratios in ([1.5, 1.3, 0.5], [0.9, 3.5, 2.9]):
            batch, advantages = logps(ratios), torch.full((3,), sign)
            loss(batch, advantages).sum().backward()
            flat = batch.policy.grad == 0
            assert loss.clipped(batch, advantages).tolist() == flat.tolist()


def test_the_kl_term_comes_on_top_with_the_estimator_that_is_named() -> None:
    batch = logps([1.0] * 3, reference=OLD - 0.3)
    values = {"k1": 0.3, "k2": 0.045, "k3": 0.040818}
    for name, value in values.items():
        losses = PPO(kl=name)(batch, torch.zeros(3), 2.0)
        assert losses.tolist() == pytest.approx([2 * value] * 3, abs=1e-5)


def test_the_importance_weight_is_on_the_policy_term_alone() -> None:
    # pi_old is twice, half and ten times as sure as the sampler was
    sampler = OLD - torch.tensor([2.0, 0.5, 10.0]).log()
    batch = logps([1.0] * 3, reference=OLD - 0.3, sampler=sampler)
    losses = PPO(importance=Truncate(cap=3.0))(batch, torch.ones(3), 1.0)
    expected = [-2 + 0.040818, -0.5 + 0.040818, -3 + 0.040818]
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, "PPO needs epsilon > 0"),
        ({"epsilon_high": -0.1}, "allowed is above 0, or null"),
        ({"epsilon_high": 0.5, "dual_clip": 1.4}, "above 1 \\+ epsilon_high = 1.5"),
        ({"kl": "k4"}, "kl: got 'k4'; allowed are k1, k2, k3"),
        ({"importance": {"name": "truncat"}}, "did you mean 'truncate'"),
        ({"importance": {"name": "truncate", "cap": 0}}, "cap: got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        policy_loss({"name": "ppo", **options})


def test_a_correction_is_built_from_the_recipe() -> None:
    loss = policy_loss({"name": "ppo", "importance": {"name": "truncate", "cap": 3}})
    assert loss == PPO(importance=Truncate(cap=3))
    assert policy_loss("ppo") == PPO()
