"""Expected calibration error, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.trainers.calibration import NUM_BINS, calibration_bins, calibration_error


def error(*gaps: float) -> float:
    return calibration_error(calibration_bins(torch.tensor(gaps)))


def test_right_as_often_as_it_says() -> None:
    # nine of ten right at confidence 0.9
    sure = math.log(9.0001)
    assert error(*[sure] * 9, -sure) == pytest.approx(0, abs=1e-4)


def test_too_sure() -> None:
    # one of two right at confidence 0.93
    sure = math.log(0.93 / 0.07)
    assert error(sure, -sure) == pytest.approx(0.43, abs=1e-5)


def test_bins_weigh_by_their_pairs() -> None:
    # 3 pairs at 0.72, all right: 0.28 off. 1 pair at 0.97, wrong: 0.97 off
    low, high = math.log(0.72 / 0.28), math.log(0.97 / 0.03)
    assert error(low, low, low, -high) == pytest.approx((3 * 0.28 + 0.97) / 4, abs=1e-5)


def test_equal_scores_are_half_right_and_half_sure() -> None:
    assert error(0.0, 0.0) == 0


def test_sums_of_batches_add_up() -> None:
    gaps = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 3
    parts = calibration_bins(gaps[:20]) + calibration_bins(gaps[20:])
    assert torch.allclose(parts, calibration_bins(gaps))
    assert parts.shape == (NUM_BINS, 3) and parts[:, 0].sum() == 50


def test_nothing_is_no_error() -> None:
    assert error() == 0
