"""A run stopped at a checkpoint and resumed ends with the weights of the uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import (
    DPOConfig,
    DPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLVRConfig,
    RLVRTrainer,
    SFTConfig,
    SFTTrainer,
)
from posttrain.errors import RunError

SFT_ROWS = [
    {"prompt": f"What is {n}?", "completion": f"It is {n}." * (1 + n % 3)} for n in range(10)
]
PAIR_ROWS = [
    {"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No." * (1 + n % 3)}
    for n in range(10)
]
PROBLEM_ROWS = [{"prompt": f"What is {n}?"} for n in range(10)]
COMMON = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,  # 3 steps an epoch: checkpoint 4 lies in the second one
    "learning_rate": 3e-3,
    "save_strategy": "steps",
    "report_to": [],
    "disable_tqdm": True,
}


def evenness(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


KINDS = {
    "sft": (SFTTrainer, SFTConfig, SFT_ROWS, {}, {}),
    "dpo": (DPOTrainer, DPOConfig, PAIR_ROWS, {}, {}),
    "reward": (RewardTrainer, RewardConfig, PAIR_ROWS, {}, {}),
    "rlvr": (
        RLVRTrainer,
        RLVRConfig,
        PROBLEM_ROWS,
        {"num_generations": 2, "max_completion_length": 6, "num_mini_batches": 2, "beta": 0.1},
        {"reward_funcs": evenness},
    ),
    "ahead": (  # rollouts that wait are in the checkpoint
        RLVRTrainer,
        RLVRConfig,
        PROBLEM_ROWS * 2,
        {
            "num_generations": 2,
            "max_completion_length": 6,
            "num_mini_batches": 2,
            "rollouts_ahead": 2,
        },
        {"reward_funcs": evenness},
    ),
    "ppo": (
        RLVRTrainer,
        RLVRConfig,
        PROBLEM_ROWS,
        {
            "num_generations": 1,
            "max_completion_length": 6,
            "num_ppo_epochs": 2,
            "num_mini_batches": 2,
            "max_steps": 10,
            "beta": 0.1,
            "kl_in": "reward",
            "kl_controller": {"name": "adaptive", "target": 0.1, "horizon": 20},
            "advantage": "gae",
            "loss": "ppo",
        },
        {"reward_funcs": evenness},
    ),
}


def trainer_of(kind: str, model: str, out: Path, **config: Any) -> Any:
    trainer_class, config_class, rows, more, options = KINDS[kind]
    args = config_class(output_dir=str(out), **{**COMMON, **more, **config})
    return trainer_class(model=model, args=args, train_dataset=rows, **options)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("sft", 4),
        ("dpo", 2),
        ("reward", 2),
        ("rlvr", 3),
        ("rlvr", 4),
        ("ppo", 4),
        ("ppo", 7),
        ("ahead", 1),
        ("ahead", 4),
        ("ahead", 13),
    ],
)
def test_resumed_equals_uninterrupted(
    kind: str, step: int, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    model = checkpoint()
    whole = trainer_of(kind, model, tmp_path, save_steps=step)
    whole.train()
    assert whole.state.global_step > step
    torch.manual_seed(99)  # a resumed run must not lean on where the random state happens to be
    again = trainer_of(kind, model, tmp_path, save_steps=step)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert again.state.global_step == whole.state.global_step
    weights = again.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_dpo_does_not_resume_without_its_reference(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer_of("dpo", checkpoint(), tmp_path, save_steps=2, max_steps=2).train()
    (tmp_path / "reference_logps.safetensors").unlink()
    again = trainer_of("dpo", checkpoint(), tmp_path, save_steps=2, max_steps=3)
    with pytest.raises(RunError, match=r"reference_logps.safetensors is missing"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
