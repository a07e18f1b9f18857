"""A global batch is one thing: how it is cut into micro-batches changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from posttrain import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from posttrain.models import Adapter, load_model

PACKS = 4  # more than 8 rows need at max_length 160: the last ones are empty
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]
SFT_ROWS = [
    {"prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}." + " Yes." * (n % 5)}
    for n in range(20)  # 8 + 8 + 4: the third step is a partial one
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"It is {n + 1}." + " Yes." * (n % 4),
        "rejected": f"Is it {n}?" + " No." * (n % 3),
    }
    for n in range(20)
]
NORMALISED = {"name": "dpo", "length_normalise": True, "beta": 5.0}


def train(
    trainer_class: Any, config: Any, path: str, rows: Any
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of three steps and the weights after them, in float64."""
    torch.manual_seed(1)  # of a fresh head
    model = load_model(path, head=trainer_class.head).double()
    trainer = trainer_class(model=model, args=config, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def settings(config_class: type, out: Path, micro: int, steps: int, **more: Any) -> Any:
    return config_class(
        output_dir=str(out),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=steps,
        num_train_epochs=1,
        # plain SGD: the weights move by the gradient itself, so equal weights are equal gradients
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **{"learning_rate": 0.05, **more},
    )


@pytest.mark.parametrize(
    ("trainer_class", "config_class", "rows", "more"),
    [
        (SFTTrainer, SFTConfig, SFT_ROWS, {}),
        (SFTTrainer, SFTConfig, SFT_ROWS, {"loss_reduction": "sum", "learning_rate": 1e-3}),
        (SFTTrainer, SFTConfig, SFT_ROWS, {"loss_reduction": "sequence_mean"}),
        (DPOTrainer, DPOConfig, PAIR_ROWS, {}),
        (DPOTrainer, DPOConfig, PAIR_ROWS, {"loss": NORMALISED}),
        (RewardTrainer, RewardConfig, PAIR_ROWS, {}),
    ],
    ids=["sft", "sft_sum", "sft_sequence_mean", "dpo", "dpo_norm", "reward"],
)
def test_a_batch_may_be_split_in_any_way(
    trainer_class: type,
    config_class: type,
    rows: Any,
    more: dict[str, Any],
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    def after(micro: int, steps: int, **other: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
        config = settings(config_class, tmp_path, micro, steps, **{**more, **other})
        return train(trainer_class, config, checkpoint("starcoder2"), rows)

    _, start = after(8, 1, learning_rate=0.0)
    whole, *others = [after(*split) for split in SPLITS]
    assert len(whole[0]) == 3
    for losses, weights in others:
        assert losses == pytest.approx(whole[0], rel=1e-9)
        same_step(weights, whole[1], start, 1e-9)


class Kept(TrainerCallback):
    """The gradient of the first step, as the optimizer gets it."""

    gradients: dict[str, torch.Tensor]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        named = given["model"].named_parameters()
        self.gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}


def first_gradient(
    trainer_class: type, config: Any, model: str, rows: Any, adapter: Adapter | None
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """What one step over all rows logs, and its gradient."""
    kept = Kept()
    trainer = trainer_class(
        model=model, args=config, train_dataset=rows, peft_config=adapter, callbacks=[kept]
    )
    if adapter:  # fresh adapters answer nothing, and half of them have no gradient
        generator = torch.Generator().manual_seed(3)
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.data.normal_(0, 0.05, generator=generator)
    trainer.train()
    assert trainer.state.global_step == 1
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    same = ("loss", "grad_norm", "tokens/", "accuracy", "rewards/")
    return {k: v for k, v in logged.items() if k.startswith(same)}, kept.gradients


@pytest.mark.parametrize("adapter", [None, Adapter(r=4, alpha=8)], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("trainer_class", "config_class", "rows", "more"),
    [
        (SFTTrainer, SFTConfig, SFT_ROWS, {}),
        (SFTTrainer, SFTConfig, SFT_ROWS, {"loss_reduction": "sum"}),
        (SFTTrainer, SFTConfig, SFT_ROWS, {"loss_reduction": "sequence_mean"}),
        (DPOTrainer, DPOConfig, PAIR_ROWS, {"loss": NORMALISED}),
        (RewardTrainer, RewardConfig, PAIR_ROWS, {}),
    ],
    ids=["sft", "sft_sum", "sft_sequence_mean", "dpo", "reward"],
)
def test_packs_budgets_and_adapters_change_no_gradient(
    trainer_class: type,
    config_class: type,
    rows: Any,
    more: dict[str, Any],
    adapter: Adapter | None,
    checkpoint: Callable[..., str],
    tmp_path: Path,
) -> None:
    model, rows = checkpoint(), rows[:8]
    given = {**more, "learning_rate": 0.0, "max_length": 160}
    ways = [
        {"micro": 8, "steps": 1},
        {"micro": 1, "steps": 8},
        {"micro": 8, "steps": 1, "max_tokens_per_device": 320},
        {"micro": 2, "steps": PACKS // 2, "packing": True},
        {"micro": PACKS, "steps": 1, "packing": True, "max_tokens_per_device": 320},
    ]
    (whole, gradients), *others = [
        first_gradient(
            trainer_class, settings(config_class, tmp_path, **way, **given), model, rows, adapter
        )
        for way in ways
    ]
    size = max(float(g.norm()) for g in gradients.values())
    for logged, found in others:
        assert logged == pytest.approx(whole, rel=1e-5)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert float((found[name] - gradient).norm()) < 1e-5 * max(
                float(gradient.norm()), 1e-2 * size
            ), name
