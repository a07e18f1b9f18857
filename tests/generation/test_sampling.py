"""The draw: right frequencies, right log-probs, and numbers that depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posttrain.generation.base import Sampling
from posttrain.generation.sampling import LIKELY, noise, pick

ROWS = 20_000
SPREAD = (torch.arange(ROWS).double() + 0.5) / ROWS  # every share of the mass alike


def shares(logits: list[float], sampling: Sampling) -> list[float]:
    chosen, _ = pick(torch.tensor([logits]).repeat(ROWS, 1), sampling, SPREAD)
    counts: list[float] = (torch.bincount(chosen, minlength=len(logits)) / ROWS).tolist()
    return counts


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_are_probabilities_at_the_temperature(temperature: float) -> None:
    expected = (torch.tensor([0.0, 1.0, 2.0]) / temperature).softmax(-1).tolist()
    found = shares([0.0, 1.0, 2.0], Sampling(temperature=temperature))
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_vocabulary_of_many_blocks() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, generator=draw) * 2
    found = torch.tensor(shares(logits.tolist(), Sampling()))
    assert float((found - logits.softmax(-1)).abs().max()) < 2e-4


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().tolist()
    assert shares(logits, Sampling(top_p=0.7)) == pytest.approx([0.625, 0, 0.375, 0], abs=1e-4)
    assert shares(logits, Sampling(top_p=0.4)) == [1, 0, 0, 0]
    assert shares(logits, Sampling(top_p=0.99)) == pytest.approx([0.5, 0.1, 0.3, 0.1], abs=1e-4)


def test_top_k_comes_before_top_p() -> None:
    logits = torch.tensor([0.4, 0.2, 0.3, 0.1]).log().tolist()
    found = shares(logits, Sampling(top_k=2))
    assert found == pytest.approx([4 / 7, 0, 3 / 7, 0], abs=1e-4)
    # of the two, the first has 4/7 of what is left: enough for 0.5, though it has 0.4 of all
    assert shares(logits, Sampling(top_k=2, top_p=0.5)) == [1, 0, 0, 0]


def test_a_nucleus_wider_than_what_is_looked_at_first() -> None:
    logits = torch.zeros(1, 4 * LIKELY).repeat(3, 1)
    uniform = torch.tensor([0.0, 0.5, 0.999999]).double()
    chosen, _ = pick(logits, Sampling(top_p=0.75), uniform)
    # as many tokens as make up three quarters, all alike: the last drawn is among the last of them
    assert chosen.tolist()[0] == 0
    assert chosen.tolist()[2] == 3 * LIKELY - 1


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.6), Sampling(top_p=0.5), Sampling(temperature=0)],
)
def test_log_probs_are_those_of_a_plain_softmax(sampling: Sampling) -> None:
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 300, generator=draw) * 3
    uniform = torch.rand(50, generator=draw, dtype=torch.float64)
    chosen, logps = pick(logits.clone(), sampling, uniform)
    expected = (logits / (sampling.temperature or 1)).log_softmax(-1)
    torch.testing.assert_close(logps, expected.gather(-1, chosen[:, None])[:, 0])
    assert logps.dtype == torch.float32
    if sampling.temperature == 0:
        assert chosen.equal(logits.argmax(-1))


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((4, 300), float("-inf"))
    logits[:, 7], logits[:, 290] = 0.0, 0.0
    uniform = torch.tensor([0.0, 0.49999, 0.5, 1.0]).double()
    chosen, _ = pick(logits, Sampling(), uniform)
    assert chosen.tolist() == [7, 7, 290, 290]


def test_half_precision_is_drawn_in_single() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(2)).bfloat16()
    uniform = torch.linspace(0, 0.9, 5).double()
    ours, logps = pick(logits, Sampling(), uniform)
    theirs, expected = pick(logits.float(), Sampling(), uniform)
    assert ours.equal(theirs)
    assert logps.equal(expected)


def test_noise_of_one_answer_is_its_own() -> None:
    first = noise(3, 7, 2, 50)
    assert np.array_equal(noise(3, 7, 2, 20), first[:20])
    assert first.min() >= 0
    assert first.max() < 1
    for other in (noise(4, 7, 2, 50), noise(3, 8, 2, 50), noise(3, 7, 1, 50)):
        assert not np.isin(first, other).any()
    assert np.concatenate([noise(0, i, g, 10) for i in range(50) for g in range(8)]).mean() == (
        pytest.approx(0.5, abs=0.02)
    )
