"""One update of PPO and of GRPO, in plain fp32 PyTorch: what `RLVRTrainer` must equal.

    python examples/rlvr.py        # both learn to write even tokens, from nothing, in seconds

Completions are given, scored; every one is forwarded by itself, after its own copy of the prompt.
PPO is Tülu 3's (arXiv:2411.15124, section 6): a KL in the reward, a value model, whitened GAE, K
epochs over mini-batches. GRPO is Tülu 3.1's: groups, a KL in the loss, one epoch.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import log_softmax
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification


class Sample(NamedTuple):
    """A scored completion; `finished` when it ends with EOS, which is one of its tokens."""

    prompt: list[int]
    answer: list[int]
    score: float
    finished: bool = True


def logps(model: nn.Module, sample: Sample, temperature: float = 1.0) -> torch.Tensor:
    """Log-prob of each token of the answer."""
    ids = torch.tensor([sample.prompt + sample.answer])
    logits = model(input_ids=ids).logits[0, len(sample.prompt) - 1 : -1].float()
    every = log_softmax(logits / temperature, -1)
    return every[range(len(sample.answer)), sample.answer]


def values(model: nn.Module, sample: Sample) -> torch.Tensor:
    """The value model's estimate before each token; its head is called `score`."""
    ids = torch.tensor([sample.prompt + sample.answer])
    hidden = model.base_model(input_ids=ids).last_hidden_state
    return model.score(hidden)[0, len(sample.prompt) - 1 : -1, 0].float()


def reward(sample: Sample, scale: float, missing_eos: float | None) -> float:
    """The score times its worth; an answer without its EOS gets `missing_eos` instead."""
    return scale * sample.score if sample.finished or missing_eos is None else missing_eos


def token_rewards(total: float, old: torch.Tensor, reference: torch.Tensor, beta: float):
    """-beta log pi_old / pi_ref at each token, and the reward on the last."""
    rewards = -beta * (old - reference)
    rewards[-1] += total
    return rewards


def gae(rewards: torch.Tensor, value: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    """Advantage of each token, backwards; nothing follows the last."""
    advantages, after, later = torch.zeros_like(rewards), 0.0, 0.0
    for t in reversed(range(len(rewards))):
        later = rewards[t] + gamma * after - value[t] + gamma * lam * later
        after = value[t]
        advantages[t] = later
    return advantages


def whiten(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Mean 0 and variance 1 over all tokens of all answers."""
    every = torch.cat(parts)
    return [(part - every.mean()) / (every.var() + 1e-8).sqrt() for part in parts]


def group_advantages(rewards: list[float]) -> torch.Tensor:
    """(r - mean) / (std + 1e-8), std with n - 1."""
    r = torch.tensor(rewards)
    return (r - r.mean()) / (r.std() + 1e-8)


def surrogate(new, old, advantages, clip: float) -> torch.Tensor:
    ratio = (new - old).exp()
    return -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))


def value_loss(new, old, returns, clip: float) -> torch.Tensor:
    near = old + (new - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((new - returns) ** 2, (near - returns) ** 2)


def k3(d: torch.Tensor) -> torch.Tensor:
    return (-d).exp() - 1 + d


def step(losses: list[torch.Tensor], optimizer, max_grad_norm: float) -> float:
    """One step on the mean over all tokens of a mini-batch."""
    loss = torch.cat(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    return loss.item()


def mini_batches(count: int, number: int) -> list[range]:
    """Samples in order, in `number` parts of one size."""
    return [range(start, start + count // number) for start in range(0, count, count // number)]


def ppo_update(
    policy, critic, reference, samples: list[Sample], optimizers, *, beta=0.05, gamma=1.0,
    lam=0.95, clip=0.2, value_clip=0.2, value_coefficient=0.1, epochs=4, num_mini_batches=1,
    reward_scale=10.0, missing_eos=-10.0, temperature=1.0, max_grad_norm=1.0,
):  # fmt: skip
    """Train both models on samples of the policy as it is; the losses of each step, in pairs.

    `optimizers` are the policy's and the value model's; each clips its gradient by itself.
    """
    with torch.no_grad():
        old = [logps(policy, s, temperature) for s in samples]
        before = [logps(reference, s, temperature) for s in samples]
        old_values = [values(critic, s) for s in samples]
    totals = [reward(s, reward_scale, missing_eos) for s in samples]
    rewards = [token_rewards(*row, beta) for row in zip(totals, old, before, strict=True)]
    raw = [gae(r, v, gamma, lam) for r, v in zip(rewards, old_values, strict=True)]
    returns = [a + v for a, v in zip(raw, old_values, strict=True)]
    advantages = whiten(raw)
    history = []
    for _ in range(epochs):
        for part in mini_batches(len(samples), num_mini_batches):
            terms, errors = [], []
            for i in part:
                new, guess = logps(policy, samples[i], temperature), values(critic, samples[i])
                terms.append(surrogate(new, old[i], advantages[i], clip))
                error = value_loss(guess, old_values[i], returns[i], value_clip)
                errors.append(value_coefficient * error)
            both = zip((terms, errors), optimizers, strict=True)
            history.append([step(*one, max_grad_norm) for one in both])
    return history


def grpo_update(
    policy, reference, groups: list[list[Sample]], optimizer, *, beta=0.01, clip=0.2,
    num_mini_batches=2, reward_scale=10.0, missing_eos=0.0, temperature=1.0, max_grad_norm=1.0,
):  # fmt: skip
    """Train on groups of samples of the policy as it is; the loss of each step.

    A mini-batch holds whole groups. Those without a spread stay: the KL still acts on them.
    """
    with torch.no_grad():
        old = [[logps(policy, s, temperature) for s in group] for group in groups]
        before = [[logps(reference, s, temperature) for s in group] for group in groups]
    history = []
    for part in mini_batches(len(groups), num_mini_batches):
        losses = []
        for i in part:
            credit = group_advantages([reward(s, reward_scale, missing_eos) for s in groups[i]])
            for sample, o, r, a in zip(groups[i], old[i], before[i], credit, strict=True):
                new = logps(policy, sample, temperature)
                losses.append(surrogate(new, o, a, clip) + beta * k3(new - r))
        history.append(step(losses, optimizer, max_grad_norm))
    return history


@torch.no_grad()
def draw(policy, prompt: list[int], length: int = 6, eos: int = 0) -> Sample:
    """Sample an answer, and score it by its share of even tokens."""
    ids = list(prompt)
    while len(ids) < len(prompt) + length and ids[-1] != eos:
        probabilities = policy(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
        ids.append(int(torch.multinomial(probabilities, 1)))
    answer = ids[len(prompt) :]
    return Sample(prompt, answer, sum(t % 2 == 0 for t in answer) / len(answer), ids[-1] == eos)


def main(updates: int = 10) -> dict[str, list[float]]:
    """Mean score before each update, of both methods; 4 prompts with 4 answers each."""
    sizes = {"vocab_size": 16, "hidden_size": 32, "intermediate_size": 64}
    shape = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=4, num_labels=1)
    scores: dict[str, list[float]] = {"ppo": [], "grpo": []}
    for method, curve in scores.items():
        torch.manual_seed(0)
        policy, critic = LlamaForCausalLM(shape), LlamaForTokenClassification(shape).eval()
        reference = copy.deepcopy(policy)
        adams = [torch.optim.AdamW(model.parameters(), 5e-3) for model in (policy, critic)]
        for _ in range(updates):
            groups = [[draw(policy, [1, 2 + p]) for _ in range(4)] for p in range(4)]
            flat = [sample for group in groups for sample in group]
            curve.append(sum(sample.score for sample in flat) / len(flat))
            if method == "ppo":
                ppo_update(policy, critic, reference, flat, adams, missing_eos=None)
            else:
                grpo_update(policy, reference, groups, adams[0], missing_eos=None)
        print(f"{method}: mean score {' '.join(f'{x:.2f}' for x in curve)}")  # noqa: T201
    return scores


if __name__ == "__main__":
    main()
