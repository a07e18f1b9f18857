"""GAE over macro actions, worked by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain.advantages import advantage
from posttrain.advantages.gae import GAE
from posttrain.advantages.macro_gae import MacroGAE, cut
from posttrain.errors import RecipeError

REWARDS = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
VALUES = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])


def test_runs_of_two() -> None:
    # runs {0, 1} {2, 3} {4}: rewards 0, 0, 1 and values .15, .35, .5
    credit = MacroGAE(size=2)(REWARDS, torch.tensor([5]), VALUES)
    assert credit.advantages.tolist() == pytest.approx([0.79375, 0.79375, 0.625, 0.625, 0.5])
    assert credit.returns.tolist() == pytest.approx([0.94375, 0.94375, 0.975, 0.975, 1.0])


def test_the_last_token_is_a_run_of_its_own() -> None:
    run, runs = cut(torch.tensor([5, 1, 0, 4, 3]), 3)
    assert run.tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 6, 7]
    assert runs.tolist() == [3, 1, 0, 2, 2]


def test_runs_of_one_are_gae_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([5, 1, 0, 17, 2])
    rewards, values = torch.randn(2, 25, generator=generator)
    ours = MacroGAE(size=1, whiten=True)(rewards, tokens, values)
    plain = GAE()(rewards, tokens, values)
    assert torch.equal(ours.advantages, plain.advantages)
    assert torch.equal(ours.returns, plain.returns)


def test_ragged_completions_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([5, 1, 0, 17, 2])
    rewards, values = torch.randn(2, 25, generator=generator)
    together = MacroGAE(size=3)(rewards, tokens, values).advantages
    alone = [
        MacroGAE(size=3)(r, torch.tensor([len(r)]), v).advantages
        for r, v in zip(rewards.split(tokens.tolist()), values.split(tokens.tolist()), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_user_mistakes() -> None:
    with pytest.raises(RecipeError, match="size: got 0; a run has 1 token or more"):
        advantage({"name": "macro_gae", "size": 0})
    with pytest.raises(ValueError, match="MacroGAE needs the values"):
        MacroGAE()(REWARDS, torch.tensor([5]))
