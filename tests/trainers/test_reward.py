"""Reward models: Bradley-Terry on the last token, and checkpoints that everyone can load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain import RewardConfig, RewardTrainer

PAIRS = [
    {"prompt_ids": [10, 11, 12], "chosen_ids": [13, 14, 1], "rejected_ids": [15, 1], "source": "a"},
    {"prompt_ids": [20, 21], "chosen_ids": [22, 1], "rejected_ids": [22, 23, 24, 1], "source": "b"},
    {"prompt_ids": [30], "chosen_ids": [31, 32, 33, 1], "rejected_ids": [34, 1], "source": "a"},
    {"prompt_ids": [40, 41, 42], "chosen_ids": [43, 1], "rejected_ids": [44, 45, 1], "source": "b"},
]


def trainer_of(model: Any, out: Path, **more: Any) -> RewardTrainer:
    values = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    args = RewardConfig(output_dir=str(out), **{**values, **more})
    return RewardTrainer(model=model, args=args, train_dataset=Dataset.from_list(PAIRS))


def score(model: Any, ids: list[int]) -> torch.Tensor:
    """What everybody else reads: one logit per sequence."""
    return model(torch.tensor([ids])).logits[0, 0]


def plain_loss(model: Any) -> torch.Tensor:
    return torch.stack(
        [
            -F.logsigmoid(
                score(model, p["prompt_ids"] + p["chosen_ids"])
                - score(model, p["prompt_ids"] + p["rejected_ids"])
            )
            for p in PAIRS
        ]
    ).mean()


def test_a_saved_checkpoint_scores_the_last_token(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, learning_rate=0.0)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    batch = trainer.data_collator([{**row, "index": i} for i, row in enumerate(PAIRS)])
    with torch.no_grad():
        ours = trainer.scores(trainer.model, batch)
        for i, pair in enumerate(PAIRS):
            for j, side in enumerate(("chosen_ids", "rejected_ids")):
                theirs = score(model, pair["prompt_ids"] + pair[side])
                torch.testing.assert_close(ours[i, j], theirs, rtol=1e-5, atol=1e-6)
        padded = torch.tensor([[0, 0, 20, 21, 22, 1], PAIRS[0]["prompt_ids"] + [13, 14, 1]])
        mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
        both = model(padded, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(both[0], ours[1, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[1], ours[0, 0], rtol=1e-4, atol=1e-5)


def test_loss_and_gradient_are_those_of_a_plain_loop(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    still = trainer_of(checkpoint(), tmp_path, learning_rate=0.0)
    still.train()
    still.save_model(str(tmp_path / "start"))
    start = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    loss = plain_loss(start)
    loss.backward()
    trainer = trainer_of(str(tmp_path / "start"), tmp_path)  # continues from the saved head
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert logged["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert logged["loss"] != pytest.approx(0.693147, abs=1e-6)
    for (name, before), after in zip(
        start.named_parameters(), trainer.model.parameters(), strict=True
    ):
        expected = before.detach() - 0.1 * before.grad
        torch.testing.assert_close(after.detach(), expected, rtol=1e-5, atol=1e-6, msg=name)


def test_a_fresh_head_is_drawn_from_the_seed(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    first, again, other = (
        trainer_of(checkpoint(), tmp_path, seed=seed).model.score.weight.detach()
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1, 32)
    assert 0.5 < first.std().item() * 33**0.5 < 1.6  # N(0, 1 / (hidden + 1))


def test_training_separates_the_pairs_and_reports_it(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, max_steps=15)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entries[-1]["loss"] < 0.5 * entries[0]["loss"]
    assert entries[-1]["rewards/accuracies"] == entries[-1]["accuracy/b"] == 1.0
    metrics = trainer.evaluate(Dataset.from_list(PAIRS))
    assert metrics["eval_accuracy/a"] == 1.0
    assert metrics["eval_rewards/margins"] > entries[0]["rewards/margins"]


def test_adapters_train_with_the_head(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from posttrain.models import Adapter

    args = RewardConfig(output_dir=str(tmp_path), max_steps=2, report_to=[], disable_tqdm=True)
    args.learning_rate = 0.1
    trainer = RewardTrainer(
        model=checkpoint(),
        args=args,
        train_dataset=Dataset.from_list(PAIRS),
        peft_config=Adapter(r=2, target_modules=["q_proj"]),
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert any("score" in name for name in moved)
    assert all("lora_" in name or "score" in name for name in moved)


def test_a_model_without_scores_is_refused(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    with pytest.raises(ValueError, match="has no score per token; pass its folder or hub id"):
        trainer_of(model, tmp_path)
