"""One rollout's steps end in the weights of the plain updates of examples/rlvr.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForTokenClassification

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.attention import set_attention
from posttrain.generation.base import Completion, ignore
from posttrain.trainers.value import load_value_model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rlvr.py"
PROBLEMS = [{"prompt": f"Say {n}."} for n in range(8)]
RATE = 0.1


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_rlvr", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def planted(
    prompts: list[list[int]], numbers: list[int], on_group: Any = ignore
) -> list[list[Completion]]:
    """Answers of 1 to 6 tokens, by the number of the row; every fourth one is cut off."""
    groups = []
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        rows = [torch.randint(1, 300, (1 + (g * 3 + number) % 6,), generator=generator)
                for g in range(SIZE)]  # fmt: skip
        groups.append([Completion(r.tolist(), (g + number) % 4 > 0) for g, r in enumerate(rows)])
    return groups


SIZE = 4


def trained(
    checkpoint: Callable[..., str], folder: Path, size: int, **more: Any
) -> tuple[RLVRTrainer, list[list[Any]], dict[str, torch.Tensor] | None]:
    """A trainer that has trained on one planted rollout; its rollout; its values' start."""
    args = RLVRConfig(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "num_generations": size,
            "optim": "sgd",
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "reward_scale": 10.0,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more,
        },
    )
    torch.manual_seed(0)
    options: dict[str, Any] = {}
    if more.get("advantage") == "gae":
        critic = load_value_model("policy", checkpoint())
        torch.nn.init.normal_(critic.score.weight, std=0.3)
        options["value_model"] = critic
    trainer = RLVRTrainer(
        checkpoint(), even_share, args, train_dataset=PROBLEMS, **options
    )  # fmt: skip
    start = {n: p.clone() for n, p in critic.state_dict().items()} if options else None
    trainer.complete = lambda p, n, *_: [g[:size] for g in planted(p, n)]
    assert trainer.reference is not None
    other = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1))
    set_attention(other)
    trainer.reference.copy = other.eval()
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    return trainer, seen, start


def samples(plain: ModuleType, rollouts: list[Any]) -> list[list[Any]]:
    """The same rollout for the plain update."""
    return [
        [
            plain.Sample(r.row["prompt_ids"], c.ids, even_share([c.ids])[0], c.finished)
            for c in r.completions
        ]
        for r in rollouts
    ]


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE)


def same(ours: Any, theirs: Any) -> None:
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def moved(model: Any, path: str) -> bool:
    start = AutoModelForCausalLM.from_pretrained(path)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return all(float((a - b).abs().max()) > 1e-4 for a, b in pairs)


PPO = {
    "advantage": "gae",
    "loss": "ppo",
    "kl_in": "reward",
    "beta": 0.05,
    "missing_eos_reward": -10.0,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "max_steps": 4,
}


@pytest.mark.parametrize(
    "cut",
    [
        {"gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 4, "max_tokens_per_device": 40, "max_completion_length": 8},
    ],
)
def test_ppo_equals_the_plain_update(
    plain: ModuleType, checkpoint: Callable[..., str], tmp_path: Path, cut: dict[str, int]
) -> None:
    trainer, rollouts, start = trained(checkpoint, tmp_path, 1, **PPO, **cut)
    assert trainer.state.global_step == 4
    assert len(rollouts) == 8
    policy = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
    reference = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1)).eval()
    critic = LlamaForTokenClassification.from_pretrained(checkpoint(), num_labels=1).eval()
    critic.score.register_parameter("bias", None)
    assert start is not None
    critic.load_state_dict(start)
    flat = [sample for group in samples(plain, rollouts) for sample in group]
    plain.ppo_update(
        policy, critic, reference, flat, (sgd(policy), sgd(critic)),
        epochs=2, num_mini_batches=2, missing_eos=-10.0,
    )  # fmt: skip
    same(trainer.value_model, critic)
    with trainer.policy_alone():
        same(trainer.model, policy)
        assert moved(trainer.model, checkpoint())


def test_grpo_equals_the_plain_update(
    plain: ModuleType, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer, rollouts, _ = trained(
        checkpoint,
        tmp_path,
        SIZE,
        beta=0.01,
        loss_reduction="token_mean",
        missing_eos_reward=0.0,
        num_mini_batches=2,
        gradient_accumulation_steps=8,
        max_steps=2,
    )
    assert trainer.state.global_step == 2
    policy = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
    reference = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1)).eval()
    plain.grpo_update(policy, reference, samples(plain, rollouts), sgd(policy), num_mini_batches=2)
    same(trainer.model, policy)
    assert moved(trainer.model, checkpoint())
