"""The value model: what it starts from, what it says, and that it goes with checkpoints only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from posttrain import RewardConfig, RewardTrainer, RLVRConfig, RLVRTrainer
from posttrain.errors import ModelError, RunError
from posttrain.models import Adapter
from posttrain.packing.layout import EMPTY, Group, pack
from posttrain.trainers.value import load_value_model, values

PAIRS = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(4)]
PROBLEMS = [{"prompt": f"Say {n}."} for n in range(8)]


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def config(out: Path, **more: Any) -> RLVRConfig:
    values = {
        "per_device_train_batch_size": 8,
        "num_generations": 1,
        "max_completion_length": 6,
        "num_ppo_epochs": 2,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "advantage": "gae",
        "loss": "ppo",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
    }
    return RLVRConfig(output_dir=str(out), **{**values, **more})


def trainer_of(checkpoint: Callable[..., str], out: Path, **more: Any) -> RLVRTrainer:
    options = {k: more.pop(k) for k in ("peft_config", "value_model") if k in more}
    return RLVRTrainer(
        checkpoint(), even_share, config(out, **more), train_dataset=PROBLEMS, **options
    )


@torch.no_grad()
def test_values_stand_before_each_token(checkpoint: Callable[..., str]) -> None:
    torch.manual_seed(0)
    critic = load_value_model("policy", checkpoint()).eval()
    prompt, answers = [5, 6, 7], [[8, 9], [10, 11, 12]]
    batch = pack([Group(prompt, [(a, a) for a in answers])])
    found = values(critic, batch)
    for answer, own in zip(answers, found.split([2, 3]), strict=True):
        alone = pack([Group(prompt + answer[:-1], [([1], [1])])])  # one token after all others
        assert values(critic, alone)[0] == pytest.approx(own[-1].item(), abs=1e-5)
    assert found[0] == pytest.approx(found[2].item(), abs=1e-6)  # both answers follow one prompt
    assert len(values(critic, pack([EMPTY]))) == 0


def test_it_starts_from_the_policy_a_reward_model_or_nothing(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = RewardConfig(output_dir=str(tmp_path), max_steps=1, report_to=[], save_strategy="no")
    reward = RewardTrainer(checkpoint(), args, train_dataset=PAIRS)
    reward.train()
    reward.save_model(str(tmp_path / "rm"))
    policy = AutoModelForCausalLM.from_pretrained(checkpoint()).model.state_dict()
    same = {}
    for start in ("policy", "random", str(tmp_path / "rm")):
        own = load_value_model(start, checkpoint())
        body = own.base_model.state_dict()
        same[start] = all(torch.equal(body[n], w) for n, w in policy.items())
        assert own.score.weight.shape[0] == 1
        assert own.score.bias is None
    assert list(same.values()) == [True, False, False]
    torch.testing.assert_close(own.score.weight, reward.model.score.weight)


def test_a_value_model_is_trained_and_is_no_part_of_the_policy(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint, tmp_path, save_strategy="steps", save_steps=2)
    before = {n: p.clone() for n, p in trainer.value_model.named_parameters()}
    trainer.train()
    assert all(not torch.equal(p, before[n]) for n, p in trainer.value_model.named_parameters())
    entry = next(e for e in trainer.state.log_history if "value_loss" in e)
    assert entry["value_loss"] > 0
    assert entry["value_grad_norm"] > 0
    names = set(AutoModelForCausalLM.from_pretrained(checkpoint()).state_dict())
    for folder in (tmp_path / "checkpoint-2", tmp_path / "model"):
        if folder.name == "model":
            trainer.save_model(str(folder))
        assert set(load_file(folder / "model.safetensors")) <= names
    saved = load_file(tmp_path / "checkpoint-2" / "value_model.safetensors")
    assert set(saved) == set(before)


def test_a_checkpoint_without_a_value_model_is_refused(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer_of(checkpoint, tmp_path, save_strategy="steps", save_steps=1, max_steps=1).train()
    (tmp_path / "checkpoint-1" / "value_model.safetensors").unlink()
    with pytest.raises(RunError, match="without a value model"):
        trainer_of(checkpoint, tmp_path).train(str(tmp_path / "checkpoint-1"))


def test_adapters_on_both(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trainer = trainer_of(
        checkpoint, tmp_path, peft_config=Adapter(r=2), beta=0.1, kl_in="reward", max_steps=4
    )
    names = [n for n, p in trainer.value_model.named_parameters() if p.requires_grad]
    assert any("lora_" in n for n in names)
    assert any("score" in n for n in names)
    assert not any("base_layer" in n for n in names)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved
    assert not any("value_model" in n or "score" in n for n in saved)


def test_what_has_no_scores_is_refused(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    with pytest.raises(ModelError, match="has no score per token"):
        trainer_of(checkpoint, tmp_path, value_model=model)
