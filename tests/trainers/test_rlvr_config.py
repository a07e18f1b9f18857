"""Settings of RL: what they name, and which contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain import RLVRConfig
from posttrain.errors import RecipeError
from posttrain.trainers.rlvr_config import Methods


def methods(folder: Path, **more: Any) -> Methods:
    size = {"per_device_train_batch_size": 8, "report_to": []}
    return Methods.of(RLVRConfig(output_dir=str(folder), **size, **more))


def test_defaults(tmp_path: Path) -> None:
    made = methods(tmp_path)
    assert made.reduction == "sequence_mean"  # GRPO's paper
    assert made.kl_in_reward is None
    assert made.value_model is None
    assert not made.late


def test_ppo(tmp_path: Path) -> None:
    made = methods(tmp_path, advantage="gae", loss="ppo", beta=0.05, kl_in="reward", vf_coef=0.5)
    assert made.reduction == "token_mean"
    assert (made.kl_in_reward, made.kl_control.beta, made.value_model) == ("k1", 0.05, "policy")
    assert (made.value_loss.coefficient, made.value_loss.clip) == (0.5, 0.2)
    assert made.late


def test_an_estimator_goes_where_the_kl_is(tmp_path: Path) -> None:
    assert methods(tmp_path, kl_estimator="k2").loss.kl == "k2"
    made = methods(tmp_path, kl_estimator="k2", kl_in="reward", beta=0.1)
    assert (made.kl_in_reward, made.loss.kl) == ("k2", "k3")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_model": "policy"}, "value_model: the advantage 'group' reads no values"),
        ({"kl_in": "head"}, "kl_in: got 'head'"),
        ({"kl_estimator": "k4"}, "kl_estimator: got 'k4'"),
        ({"loss_reduction": "mean"}, "loss_reduction: got 'mean'"),
        (
            {"kl_estimator": "k1", "loss": {"name": "grpo", "kl": "k3"}},
            "kl_estimator: got k1, but `loss.kl` is k3",
        ),
        ({"kl_controller": "adaptive", "beta": 0.1}, "set `kl_in: reward`"),
        ({"kl_controller": {"name": "fixed", "beta": 1}}, "its weight starts at `beta`"),
        ({"cliprange_value": -1.0}, "clip: got -1.0"),
    ],
)
def test_contradictions(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        methods(tmp_path, **settings)


def test_a_rollout_lasts_for_some_steps(tmp_path: Path) -> None:
    args = RLVRConfig(
        output_dir=str(tmp_path), num_mini_batches=2, num_ppo_epochs=3, report_to=[]
    )  # fmt: skip
    assert args.steps_per_rollout == 6
    with pytest.raises(RecipeError, match="num_ppo_epochs: got 0"):
        RLVRConfig(output_dir=str(tmp_path), num_ppo_epochs=0, report_to=[])
