"""The KL controllers, worked by hand."""

from __future__ import annotations

import pytest

from posttrain.errors import RecipeError
from posttrain.losses import kl_controller
from posttrain.losses.kl_control import AdaptiveKL, FixedKL


def test_fixed() -> None:
    controller = FixedKL(0.05)
    controller.update(100.0, 224)
    assert controller.beta == 0.05


def test_adaptive() -> None:
    controller = AdaptiveKL(beta=0.1, target=6.0, horizon=1000)
    controller.update(6.6, 100)  # 10% over: 1 + .1 * .1
    assert controller.beta == pytest.approx(0.101)
    controller.update(60.0, 500)  # the error counts as 20%: 1 + .2 * .5
    assert controller.beta == pytest.approx(0.101 * 1.1)
    controller.update(0.0, 500)  # and as -20% below
    assert controller.beta == pytest.approx(0.101 * 1.1 * 0.9)
    controller.update(6.0, 500)
    assert controller.beta == pytest.approx(0.101 * 1.1 * 0.9)


def test_the_papers_gain() -> None:
    # K_beta 0.1 is a tenth of the horizon per update; twice the target is cut to 20%
    controller = AdaptiveKL(beta=1.0, target=3.0, horizon=5120)
    controller.update(6.0, 512)
    assert controller.beta == pytest.approx(1 + 0.1 * 0.2)


@pytest.mark.parametrize("name", ["fixed", "adaptive"])
def test_a_resumed_controller_goes_on(name: str) -> None:
    first, second = (kl_controller({"name": name, "beta": beta}) for beta in (0.1, 0.9))
    first.update(20.0, 512)
    second.load_state_dict(first.state_dict())
    for controller in (first, second):
        controller.update(1.0, 100)
    assert first == second


def test_user_mistakes() -> None:
    with pytest.raises(RecipeError, match="beta: got -1; a KL penalty needs beta >= 0"):
        kl_controller({"name": "fixed", "beta": -1})
    with pytest.raises(RecipeError, match="target: got 0; the adaptive controller needs target"):
        kl_controller({"name": "adaptive", "target": 0})
    with pytest.raises(RecipeError, match="did you mean 'adaptive'"):
        kl_controller("adaptiv")
