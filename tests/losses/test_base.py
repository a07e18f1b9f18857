"""The reductions, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import RecipeError
from posttrain.losses import policy_loss, preference_loss
from posttrain.losses.base import num_items, segment_sum, token_weights, within_shared

SEGMENT = torch.tensor([0, 0, 0, 2])  # three tokens of the first sequence, one of the third
TOKENS = torch.tensor([3, 0, 1])


def test_segment_sum() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert segment_sum(values, SEGMENT, 3).tolist() == [6.0, 0.0, 4.0]


def test_denominators() -> None:
    assert num_items(TOKENS, "token_mean") == 4
    assert num_items(TOKENS, "sum") == 2  # sequences with a trained token
    assert num_items(TOKENS, "sequence_mean") == 2
    assert num_items(TOKENS, "max_length", 10) == 20


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token_mean", 10 / 4),
        ("sum", 10 / 2),
        ("sequence_mean", (2 + 4) / 2),
        ("max_length", 10 / (2 * 5)),
    ],
)
def test_reductions_of_losses_1_2_3_and_4(reduction: str, expected: float) -> None:
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    total = (losses * token_weights(TOKENS, SEGMENT, reduction)).sum()
    assert total / num_items(TOKENS, reduction, 5) == pytest.approx(expected)


def test_tokens_within_the_length_of_the_shorter_answer() -> None:
    # answers of 3 and 1 tokens are a pair, then of 0 and 2, then of 2 and 2
    tokens = torch.tensor([3, 1, 0, 2, 2, 2])
    segment = torch.repeat_interleave(torch.arange(6), tokens)
    found = within_shared(segment, tokens).int().tolist()
    assert found == [1, 0, 0, 1, 0, 0, 1, 1, 1, 1]


def test_methods_are_built_by_name() -> None:
    assert preference_loss({"name": "dpo", "beta": 5, "length_normalise": True}).beta == 5
    assert policy_loss({"name": "grpo", "epsilon": 0.1}).epsilon == 0.1
    with pytest.raises(RecipeError, match="unknown preference loss 'dpoo'; did you mean 'dpo'"):
        preference_loss({"name": "dpoo"})
    with pytest.raises(RecipeError, match="no option 'epsilonn'; did you mean 'epsilon'"):
        policy_loss({"name": "grpo", "epsilonn": 0.1})
