"""Alarms over curves that were made up: each is heard at its trouble, and only there."""

from __future__ import annotations

import logging

import pytest

from posttrain.trainers.alarms import (
    ALARMS,
    Alarms,
    all_truncated,
    all_zero,
    kl_blow_up,
    length_collapse,
    reward_spike,
)

HEALTHY = [
    {
        "step": step,
        "reward": 0.3 + 0.02 * step + 0.03 * (-1) ** step,
        "pass_rate": 0.3,
        "useful_groups": 0.5,
        "kl": 0.001 * step,
        "truncated": 0.1,
        "completion_length": 100.0 - step,
    }
    for step in range(1, 21)
]


@pytest.mark.parametrize("alarm", ALARMS)
def test_a_healthy_run_is_left_alone(alarm: object) -> None:
    assert all(alarm(HEALTHY[:n]) is None for n in range(len(HEALTHY) + 1))  # type: ignore[operator]


def test_a_reward_that_jumps() -> None:
    flat = [{"reward": 0.2 + 0.01 * (-1) ** i} for i in range(10)]
    assert reward_spike([*flat, {"reward": 0.25}]) is None  # 5 deviations of 0.01
    assert "hole in a verifier" in str(reward_spike([*flat, {"reward": 0.27}]))  # 7
    assert reward_spike([*flat[:9], {"reward": 0.9}]) is None  # too early to say


def test_a_kl_that_blows_up() -> None:
    flat = [{"kl": 0.02}] * 10
    assert kl_blow_up([*flat, {"kl": 0.19}]) is None
    assert "runs away" in str(kl_blow_up([*flat, {"kl": 0.21}]))
    assert kl_blow_up([*[{"kl": 0.001}] * 10, {"kl": 0.09}]) is None  # small whatever it was


def test_nothing_ends_and_nothing_passes() -> None:
    cut, half = {"truncated": 1.0}, {"truncated": 0.99}
    assert all_truncated([cut, cut]) is None
    assert all_truncated([cut, cut, half]) is None
    assert "EOS" in str(all_truncated([half, cut, cut, cut]))
    none = {"pass_rate": 0.0, "useful_groups": 0.0}
    assert "too hard" in str(all_zero([none] * 3))
    assert all_zero([none, none, {"pass_rate": 0.0, "useful_groups": 0.1}]) is None
    assert all_zero([{"pass_rate": 0.1, "useful_groups": 0.0}, none, none]) is None


def test_a_length_that_collapses() -> None:
    long = [{"completion_length": 80.0}] * 10
    assert length_collapse([*long, {"completion_length": 21.0}]) is None
    assert "short ones" in str(length_collapse([*long, {"completion_length": 20.0}]))


def test_each_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    alarms, history = Alarms(), [{"truncated": 1.0, "step": s} for s in range(1, 6)]
    with caplog.at_level(logging.WARNING):
        for n in range(1, 6):
            alarms(history[:n])
    assert [record.getMessage()[:24] for record in caplog.records] == ["all_truncated at step 3:"]
