"""Calibration of a reward model: is it right as often as it says?

A gap d between the scores of two answers says that the higher one is better with probability
sigmoid(|d|). Pairs are put into bins by that confidence, and the expected calibration error is the
mean over pairs of |share right - mean confidence| of their bin (Naeini et al. 2015, "Obtaining well
calibrated probabilities using Bayesian binning"; Guo et al. 2017, arXiv:1706.04599, Eq. 3).
"""

from __future__ import annotations

import torch

NUM_BINS = 10  # of the confidences there can be, 0.5 to 1


def calibration_bins(gaps: torch.Tensor) -> torch.Tensor:
    """Sums that can be added up over batches and processes.

    Args:
        gaps: `[B]` score of the better answer less that of the worse one.

    Returns:
        `[bins, 3]` per bin: pairs, summed confidence, pairs whose better answer scored higher
        (half of those whose answers scored the same).
    """
    confidence = gaps.abs().float().sigmoid()
    right = (gaps > 0).float() + 0.5 * (gaps == 0).float()
    index = ((confidence - 0.5) * 2 * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    sums = torch.stack([torch.ones_like(confidence), confidence, right], 1)
    return sums.new_zeros(NUM_BINS, 3).index_add_(0, index, sums)


def calibration_error(bins: torch.Tensor) -> float:
    """Expected calibration error, 0 (as often right as it says) to 1; 0 without pairs."""
    pairs, confidence, right = bins.unbind(1)
    return float((right - confidence).abs().sum() / pairs.sum().clamp(min=1))
