"""A step whose loss or gradient is not finite is left out, counted, and blamed on its rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from posttrain import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from posttrain.errors import RunError
from posttrain.trainers.guards import listed, spoil_gradient

POISON = "~"  # the tests' model has no finite embedding for it
ROWS = [
    {"prompt": f"What is {n}?", "completion": f"It is {n}. Yes.", "source": "sums"}
    for n in range(15)
]
BAD = {"prompt": "What is x?", "completion": f"It is {POISON}.", "source": "letters"}


class Watch(TrainerCallback):
    """The first weight and the learning rate after every step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.rates: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.weights.append(given["model"].model.layers[0].mlp.up_proj.weight.detach().clone())
        self.rates.append(given["lr_scheduler"].get_last_lr()[0])


def poisoned(path: str, token: int) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa")
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = float("inf")
    return model


def trainer_of(
    model: Any, rows: Any, out: Path, tokenizer: Any, **more: Any
) -> tuple[SFTTrainer, Watch]:
    watch = Watch()
    values: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    args = SFTConfig(output_dir=str(out), **(values | more))
    return (
        SFTTrainer(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[watch],
        ),
        watch,
    )


def test_a_loss_that_is_not_finite_spoils_its_gradient() -> None:
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    spoil_gradient(x.square().sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0, 8.0]
    for bad in (float("inf"), float("nan")):
        x.grad = None
        loss = spoil_gradient(x.square().sum() + bad)  # whose own gradient is finite
        loss.backward()
        assert not loss.isfinite()
        assert x.grad.isnan().all()


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("budget", [None, 64])
def test_a_bad_step_changes_nothing_and_the_run_goes_on(
    checkpoint: Callable[..., str],
    tokenizer: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    max_grad_norm: float,
    budget: int | None,
) -> None:
    model = poisoned(checkpoint(), tokenizer.encode(POISON, add_special_tokens=False)[0])
    trainer, watch = trainer_of(
        model,
        [*ROWS[:7], BAD, *ROWS[7:]],
        tmp_path,
        tokenizer,
        max_grad_norm=max_grad_norm,
        max_tokens_per_device=budget,
    )
    with caplog.at_level(logging.WARNING, "posttrain.trainers.guards"):
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 4
    (bad,) = [i for i, entry in enumerate(log) if not entry["loss"] < 1e9]
    assert [entry["skipped_steps"] for entry in log] == [int(i >= bad) for i in range(4)]
    before = [start_of(checkpoint()), *watch.weights]
    for i in range(4):
        assert torch.equal(before[i], before[i + 1]) == (i == bad)
        assert watch.weights[i].isfinite().all()
    rates = [1e-2, *watch.rates]
    assert rates[bad] == rates[bad + 1]  # a step that was not taken does not count in the schedule
    assert f"step {bad + 1}: the loss is not finite, in letters (rows 7)" in caplog.text
    # nothing is left in Adam either
    assert all(s["exp_avg"].isfinite().all() for s in trainer.optimizer.state.values())


def start_of(path: str) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path)
    return model.model.layers[0].mlp.up_proj.weight.detach()


def test_the_run_stops_after_several_in_a_row(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    model = poisoned(checkpoint(), tokenizer.encode(POISON, add_special_tokens=False)[0])
    trainer, watch = trainer_of(model, [BAD] * 16, tmp_path, tokenizer, max_skipped_steps=2)
    message = (
        r"step 2: the loss is not finite, in letters \(rows \d+, \d+, \d+, \d+\)\. 2 steps in a row"
        r" were skipped, the weights are those of step 0: look at these rows, lower learning_rate,"
        r" or raise max_skipped_steps \(2\)"
    )
    with pytest.raises(RunError, match=message):
        trainer.train()
    assert len(watch.weights) == 1
    assert trainer.skipped_steps == 2


def test_a_gradient_without_a_bound_names_the_sources(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    trainer, _ = trainer_of(checkpoint(), ROWS, tmp_path, tokenizer, max_skipped_steps=1)
    weight = trainer.model.model.layers[1].mlp.down_proj.weight
    weight.register_hook(lambda grad: grad / 0)
    with pytest.raises(RunError, match=r"the gradient is not finite .* the loss is; sources: sums"):
        trainer.train()


def test_pairs_are_guarded_too(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n}?", "chosen": f"{n}", "rejected": "No.", "source": "pairs"}
        for n in range(4)
    ]
    args = RewardConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_skipped_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = RewardTrainer(model=checkpoint(), args=args, train_dataset=rows)
    with torch.no_grad():
        trainer.model.score.weight.fill_(float("nan"))
    with pytest.raises(RunError, match=r"step 1: the loss is not finite, in pairs \(rows"):
        trainer.train()


def test_many_rows_are_cut_short() -> None:
    assert (
        listed({"b": [], "a": list(range(10))}) == "a (rows 0, 1, 2, 3, 4, 5, 6, 7 and 2 more), b"
    )
