"""Rewards on tokens, ragged rows and whitening, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages import ADVANTAGES
from posttrain.advantages.base import (
    discounted,
    from_rows,
    moments,
    penalised,
    to_rows,
    token_rewards,
    whiten,
)

TOKENS = torch.tensor([3, 0, 1])


def test_a_kl_at_every_token_and_the_score_on_the_last() -> None:
    # beta 0.05 times the log-ratios .1, -.2, 0, .4, and a score of 10
    out = token_rewards(
        torch.tensor([10.0]), torch.tensor([4]), torch.tensor([0.1, -0.2, 0.0, 0.4]), 0.05
    )
    assert out.tolist() == pytest.approx([-0.005, 0.010, 0.0, 9.980])


def test_scores_of_several_completions_without_a_kl() -> None:
    out = token_rewards(torch.tensor([10.0, 7.0, -10.0]), TOKENS)
    assert out.tolist() == [0.0, 0.0, 10.0, -10.0]  # the empty completion has no place for its 7


def test_the_rewards_sum_to_score_less_kl() -> None:
    kl = torch.tensor([0.1, 0.2, 0.3, 0.4])
    total = to_rows(token_rewards(torch.tensor([1.0, 0.0, 2.0]), TOKENS, kl, 0.5), TOKENS).sum(1)
    assert total.tolist() == pytest.approx([1 - 0.3, 0.0, 2 - 0.2])
    whole = penalised(torch.tensor([[1.0, 0.0, 2.0]]), TOKENS, kl, 0.5)
    assert whole[0].tolist() == pytest.approx(total.tolist())


def test_rows_and_back() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rows = to_rows(values, TOKENS)
    assert rows.tolist() == [[1.0, 2.0, 3.0], [0.0] * 3, [4.0, 0.0, 0.0]]
    assert from_rows(rows, TOKENS).tolist() == values.tolist()


@pytest.mark.parametrize("tokens", [[], [0], [0, 0]])
def test_nothing_at_all(tokens: list[int]) -> None:
    counts = torch.tensor(tokens, dtype=torch.long)
    rows = to_rows(torch.zeros(0), counts)
    assert from_rows(discounted(rows, 0.9), counts).tolist() == []
    assert token_rewards(torch.zeros(len(tokens)), counts).tolist() == []


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9])
def test_discounted_sums(length: int) -> None:
    rows = torch.arange(1.0, length + 1)[None]
    expected = [sum(0.5 ** (k - t) * (k + 1) for k in range(t, length)) for t in range(length)]
    assert discounted(rows, 0.5)[0].tolist() == pytest.approx(expected)


def test_whitening() -> None:
    # variance with n - 1, epsilon under the root
    values = torch.tensor([0.799675, 0.7365, 0.67, 0.6])
    assert whiten(values).tolist() == pytest.approx(
        [1.141836, 0.406744, -0.367038, -1.181545], abs=1e-5
    )
    kept = whiten(values, shift=False)
    assert (kept - whiten(values)).tolist() == pytest.approx([values.mean().item()] * 4)


def test_statistics_are_those_of_all_processes() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.rand(n, generator=generator) * 3 - 7 for n in (5, 3, 0)]
    every = torch.cat(parts)

    def sums(part: torch.Tensor) -> torch.Tensor:
        x = part.double()
        return torch.stack([x.new_tensor(len(x)), x.sum(), (x * x).sum()])

    total = torch.stack([sums(part) for part in parts]).sum(0)
    mean, variance = moments(parts[0], lambda _: total)
    assert mean.item() == pytest.approx(every.mean().item())
    assert variance.item() == pytest.approx(every.var().item())
    out = torch.cat([whiten(part, lambda _: total) for part in parts])
    assert out.tolist() == pytest.approx(whiten(every).tolist(), abs=1e-6)


def test_equal_values_whiten_to_nearly_nothing() -> None:
    assert whiten(torch.full((7,), 0.1)).abs().max() < 1e-8
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]
    assert whiten(torch.zeros(0)).tolist() == []


def test_every_method_says_its_kind() -> None:
    kinds = {name: (method.per_token, method.needs_values) for name, method in ADVANTAGES.items()}
    assert kinds == {
        "group": (False, False),
        "leave_one_out": (False, False),
        "reinforce_plus_plus_baseline": (False, False),
        "gae": (True, True),
        "macro_gae": (True, True),
        "reinforce_plus_plus": (True, False),
    }
