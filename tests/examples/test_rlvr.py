"""The plain updates of examples/rlvr.py: by hand, and from the library's own small parts."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForTokenClassification

from posttrain.advantages import advantage
from posttrain.advantages.base import token_rewards
from posttrain.losses import policy_loss, value_loss
from posttrain.losses.base import TokenLogps, num_items, token_weights
from posttrain.losses.kl import k1

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rlvr.py"


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_rlvr", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(plain: ModuleType, prompts: int = 2, size: int = 4) -> list[list[Any]]:
    """Groups of answers of 1 to 6 tokens, the first of each right, the last cut off."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(1, 300, (count,), generator=generator).tolist()

    return [
        [
            plain.Sample(prompt, ids(1 + (g * 3 + p) % 6), float(g == 0), finished=g < size - 1)
            for g in range(size)
        ]
        for p, prompt in enumerate(ids(3) for _ in range(prompts))
    ]


def models(checkpoint: Callable[..., str]) -> tuple[Any, Any, Any]:
    """Policy, value model and a reference that is not the policy."""
    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_pretrained(checkpoint())
    reference = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1))
    critic = LlamaForTokenClassification.from_pretrained(checkpoint(), num_labels=1)
    torch.nn.init.normal_(critic.score.weight, std=0.3)
    return policy.eval(), critic.eval(), reference.eval()


def sgd(model: Any, rate: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate)


def same(trained: Any, ours: Any) -> None:
    for theirs, mine in zip(trained.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_credit_by_hand(plain: ModuleType) -> None:
    kl = torch.tensor([0.1, -0.2, 0.0, 0.4])
    rewards = plain.token_rewards(10.0, kl, torch.zeros(4), 0.05)
    assert rewards.tolist() == pytest.approx([-0.005, 0.010, 0.0, 9.980])
    values, last = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    advantages = plain.gae(last, values, 1.0, 0.95)
    assert advantages.tolist() == pytest.approx([0.799675, 0.7365, 0.67, 0.6])
    first, second = plain.whiten([advantages[:1], advantages[1:]])
    assert [*first.tolist(), *second.tolist()] == pytest.approx(
        [1.141836, 0.406744, -0.367038, -1.181545], abs=1e-5
    )
    assert plain.group_advantages([1.0, 0.0, 0.0, 0.0]).tolist() == pytest.approx(
        [1.5, -0.5, -0.5, -0.5], abs=1e-6
    )


def test_losses_by_hand(plain: ModuleType) -> None:
    new, advantages = torch.tensor([1.5, 0.5, 1.1]).log(), torch.tensor([1.0, 1.0, -1.0])
    losses = plain.surrogate(new, torch.zeros(3), advantages, 0.2)
    assert losses.tolist() == pytest.approx([-1.2, -0.5, 1.1])
    losses = plain.value_loss(
        torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.9]), torch.tensor([0.0, 3.0]), 0.2
    )
    assert losses.tolist() == pytest.approx([0.5, 0.5])
    assert plain.k3(torch.tensor(0.3)).item() == pytest.approx(0.040818, abs=1e-6)


def test_a_reward(plain: ModuleType) -> None:
    right, cut = plain.Sample([1], [2], 1.0), plain.Sample([1], [2], 1.0, finished=False)
    assert plain.reward(right, 10.0, -10.0) == 10.0
    assert plain.reward(cut, 10.0, -10.0) == -10.0
    assert plain.reward(cut, 10.0, None) == 10.0


def test_ppo_from_the_small_parts(plain: ModuleType, checkpoint: Callable[..., str]) -> None:
    """Two epochs of two mini-batches, packed token after token, with Tülu 3's settings."""
    policy, critic, reference = models(checkpoint)
    flat = [sample for group in samples(plain) for sample in group]
    trained = copy.deepcopy((policy, critic))
    history = plain.ppo_update(
        *trained, reference, flat, [sgd(m) for m in trained], epochs=2, num_mini_batches=2
    )

    tokens = torch.tensor([len(s.answer) for s in flat])
    with torch.no_grad():
        old = torch.cat([plain.logps(policy, s) for s in flat])
        kl = k1(old - torch.cat([plain.logps(reference, s) for s in flat]))
        before = torch.cat([plain.values(critic, s) for s in flat])
    scores = torch.tensor([10 * s.score if s.finished else -10.0 for s in flat])
    credit = advantage("gae")(token_rewards(scores, tokens, kl, 0.05), tokens, before)
    losses, errors = policy_loss("ppo"), value_loss("clipped")
    cuts = [(0, 4, 0, int(tokens[:4].sum())), (4, 8, int(tokens[:4].sum()), len(old))]
    optimizers = [sgd(m) for m in (policy, critic)]
    for step, (first, last, start, stop) in enumerate(cuts * 2):
        part, kept = flat[first:last], slice(start, stop)
        counts = tokens[first:last]
        segment = torch.repeat_interleave(torch.arange(4), counts)
        weights = token_weights(counts, segment, "token_mean") / num_items(counts, "token_mean")
        new = torch.cat([plain.logps(policy, s) for s in part])
        value = torch.cat([plain.values(critic, s) for s in part])
        terms = losses(TokenLogps(new, old[kept]), credit.advantages[kept])
        misses = errors(value, before[kept], credit.returns[kept])
        both = [(terms * weights).sum(), (misses * weights).sum()]
        for loss, optimizer, model in zip(both, optimizers, (policy, critic), strict=True):
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert [loss.item() for loss in both] == pytest.approx(history[step], abs=1e-6)
    same(trained[0], policy)
    same(trained[1], critic)


def test_grpo_from_the_small_parts(plain: ModuleType, checkpoint: Callable[..., str]) -> None:
    """Tülu 3.1's: two mini-batches of one group each, k3 in the loss."""
    policy, _, reference = models(checkpoint)
    groups = samples(plain)
    trained = copy.deepcopy(policy)
    history = plain.grpo_update(trained, reference, groups, sgd(trained))

    with torch.no_grad():
        old = [torch.cat([plain.logps(policy, s) for s in group]) for group in groups]
        before = [torch.cat([plain.logps(reference, s) for s in group]) for group in groups]
    scores = torch.tensor([[10 * s.score if s.finished else 0.0 for s in g] for g in groups])
    advantages, optimizer = advantage("group")(scores), sgd(policy)
    for i, group in enumerate(groups):
        tokens = torch.tensor([len(s.answer) for s in group])
        segment = torch.repeat_interleave(torch.arange(len(group)), tokens)
        new = torch.cat([plain.logps(policy, s) for s in group])
        losses = policy_loss("grpo")(
            TokenLogps(new, old[i], before[i]), advantages[i][segment], 0.01
        )
        loss = losses.sum() / num_items(tokens, "token_mean")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        assert loss.item() == pytest.approx(history[i], abs=1e-6)
    same(trained, policy)


def test_log_probs_and_values_are_those_of_the_whole_sequence(
    plain: ModuleType, checkpoint: Callable[..., str]
) -> None:
    policy, critic, _ = models(checkpoint)
    sample = plain.Sample([5, 6, 7], [8, 9], 1.0)
    logits = policy(torch.tensor([[5, 6, 7, 8, 9]])).logits[0] / 0.7
    expected = [logits[2].log_softmax(-1)[8].item(), logits[3].log_softmax(-1)[9].item()]
    assert plain.logps(policy, sample, 0.7).tolist() == pytest.approx(expected)
    scores = critic(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, :, 0]
    assert plain.values(critic, sample).tolist() == pytest.approx(scores[2:4].tolist())


@pytest.mark.slow
def test_both_methods_learn(plain: ModuleType) -> None:
    for curve in plain.main(updates=8).values():
        assert sum(curve[-2:]) / 2 > curve[0] + 0.15
