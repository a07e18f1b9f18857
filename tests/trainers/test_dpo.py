"""DPO equals a plain fp32 loop and TRL's trainer on the same pairs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForCausalLM

from posttrain import DPOConfig, DPOTrainer
from posttrain.models import load_model

PAIRS = [
    {"prompt_ids": [10, 11, 12], "chosen_ids": [13, 14, 1], "rejected_ids": [15, 1], "source": "a"},
    {"prompt_ids": [20, 21], "chosen_ids": [22, 1], "rejected_ids": [22, 23, 24, 1], "source": "b"},
    {"prompt_ids": [30], "chosen_ids": [31, 32, 33, 1], "rejected_ids": [34, 1], "source": "a"},
    {"prompt_ids": [40, 41, 42], "chosen_ids": [43, 1], "rejected_ids": [44, 45, 1], "source": "b"},
]
PLAIN = {"name": "dpo", "beta": 0.5}
NORMALISED = {"name": "dpo", "beta": 5.0, "length_normalise": True}


def config(out: Path, **more: Any) -> DPOConfig:
    values = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 2,
        "optim": "sgd",
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return DPOConfig(output_dir=str(out), **{**values, **more})


def logp(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Summed log-probability of an answer, forwarded alone with its prompt."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()


def plain_losses(model: Any, reference: Any, loss: dict[str, Any]) -> torch.Tensor:
    out = []
    for pair in PAIRS:
        delta = {}
        for side in ("chosen_ids", "rejected_ids"):
            answer = pair[side]
            with torch.no_grad():
                base = logp(reference, pair["prompt_ids"], answer)
            delta[side] = logp(model, pair["prompt_ids"], answer) - base
            if loss.get("length_normalise"):
                delta[side] = delta[side] / len(answer)
        out.append(-F.logsigmoid(loss["beta"] * (delta["chosen_ids"] - delta["rejected_ids"])))
    return torch.stack(out)


def plain_training(folder: str, loss: dict[str, Any], steps: int) -> tuple[list[float], Any]:
    """`steps` of SGD by hand: the losses and the model after them."""
    model, reference = (AutoModelForCausalLM.from_pretrained(folder).double() for _ in range(2))
    losses = []
    for _ in range(steps):
        model.zero_grad()
        value = plain_losses(model, reference, loss).mean()
        value.backward()
        losses.append(value.item())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad
    return losses, model


def logged(trainer: Any, key: str = "loss") -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_the_constructor_takes_what_trl_takes() -> None:
    from trl import DPOTrainer as Theirs

    theirs = list(inspect.signature(Theirs.__init__).parameters)
    ours = list(inspect.signature(DPOTrainer.__init__).parameters)
    assert ours[1:4] == theirs[1:4] == ["model", "ref_model", "args"]


@pytest.mark.parametrize("loss", [PLAIN, NORMALISED], ids=["plain", "normalised"])
def test_losses_and_weights_are_those_of_a_plain_loop(
    loss: dict[str, Any],
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    path = checkpoint("starcoder2")
    losses, expected = plain_training(path, loss, steps=2)
    assert losses[0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[1] < losses[0]
    start = load_model(path).double()
    trainer = DPOTrainer(
        model=load_model(path).double(),
        args=config(tmp_path, loss=loss),
        train_dataset=Dataset.from_list(PAIRS),
    )
    trainer.train()
    assert logged(trainer) == pytest.approx(losses, rel=1e-9)
    models = (trainer.model, expected, start)
    same_step(*(dict(model.named_parameters()) for model in models), 1e-9)


@pytest.mark.parametrize(("loss", "loss_type"), [(PLAIN, "sigmoid"), (NORMALISED, "sigmoid_norm")])
def test_losses_equal_trl(
    loss: dict[str, Any],
    loss_type: str,
    checkpoint: Callable[..., str],
    tokenizer: Any,
    tmp_path: Path,
    float64: None,
) -> None:
    from trl import DPOConfig as TheirConfig
    from trl import DPOTrainer as Theirs

    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n}?"}],
            "chosen": [{"role": "assistant", "content": "It is a number." * (1 + n % 2)}],
            "rejected": [{"role": "assistant", "content": f"{n}" + "!" * n}],
        }
        for n in range(4)
    ]
    shared = {
        "max_steps": 2,
        "learning_rate": 0.01,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    path = checkpoint("starcoder2")
    theirs = Theirs(
        model=AutoModelForCausalLM.from_pretrained(path).double(),
        ref_model=AutoModelForCausalLM.from_pretrained(path).double(),
        args=TheirConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=4,
            beta=loss["beta"],
            loss_type=[loss_type],
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            **shared,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    theirs.train()
    args = config(tmp_path / "ours", loss=loss)
    # ours is exact here; TRL rounds its reference to float32
    ours = DPOTrainer(load_model(path).double(), args=args, train_dataset=rows)
    ours.train()
    for key in ("loss", "grad_norm"):
        assert logged(ours, key) == pytest.approx(logged(theirs, key), rel=1e-5)
    # at the first step every margin is a rounding; TRL reports normalised rewards unnormalised
    keys = ["rewards/accuracies"]
    if loss_type == "sigmoid":
        keys += ["rewards/chosen", "rewards/rejected", "rewards/margins"]
    for key in keys:
        assert logged(ours, key)[1] == pytest.approx(logged(theirs, key)[1], rel=1e-5)


def test_metrics_and_sources(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trainer = DPOTrainer(
        model=checkpoint(),
        args=config(tmp_path, loss=PLAIN),
        train_dataset=Dataset.from_list(PAIRS),
    )
    trainer.train()
    assert logged(trainer, "rewards/margins")[0] == pytest.approx(0.0, abs=1e-6)
    assert logged(trainer, "rewards/margins")[1] > 0
    assert logged(trainer, "accuracy/a")[1] == logged(trainer, "accuracy/b")[1] == 1.0
    parts = [logged(trainer, f"margin/{source}")[1] for source in "ab"]
    assert sum(parts) / 2 == pytest.approx(logged(trainer, "rewards/margins")[1])
    reference = AutoModelForCausalLM.from_pretrained(checkpoint())
    for i, pair in enumerate(PAIRS):
        expected = [
            logp(reference, pair["prompt_ids"], pair[side]).item()
            for side in ("chosen_ids", "rejected_ids")
        ]
        assert trainer.reference[i, :2].tolist() == pytest.approx(expected, rel=1e-5)
        shared = min(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
        expected = [
            logp(reference, pair["prompt_ids"], pair[side][:shared]).item()
            for side in ("chosen_ids", "rejected_ids")
        ]
        assert trainer.reference[i, 2:].tolist() == pytest.approx(expected, rel=1e-5)
    for side in (0, 1):
        name = ("logps/chosen", "logps/rejected")[side]
        mean = trainer.reference[:, side].mean().item()
        assert logged(trainer, name)[0] == pytest.approx(mean, rel=1e-5)


def test_evaluation_uses_the_starting_model_and_every_pair_once(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    values = []
    for batch in (1, 3, 4):
        trainer = DPOTrainer(
            model=checkpoint(),
            args=config(
                tmp_path,
                loss=PLAIN,
                per_device_eval_batch_size=batch,
                eval_strategy="steps",
                eval_steps=1,
            ),
            train_dataset=Dataset.from_list(PAIRS),
            eval_dataset=Dataset.from_list(PAIRS),
        )
        trainer.train()
        values.append(logged(trainer, "eval_loss"))
    _, after_one = plain_training(checkpoint(), PLAIN, steps=1)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint())
    expected = plain_losses(after_one, reference, PLAIN).mean().item()
    assert len(values[0]) == 2
    assert values[0][0] == pytest.approx(expected, rel=1e-5)
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[2] == pytest.approx(values[0], rel=1e-5)


def test_rows_never_seen_cannot_be_evaluated_after_training(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = DPOTrainer(
        model=checkpoint(), args=config(tmp_path), train_dataset=Dataset.from_list(PAIRS)
    )
    trainer.train()
    with pytest.raises(ValueError, match="before train"):
        trainer.evaluate(Dataset.from_list(PAIRS[:2]))


def test_adapters_are_off_in_the_reference(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from peft import LoraConfig

    trainer = DPOTrainer(
        model=checkpoint(),
        args=config(tmp_path, loss=PLAIN, learning_rate=1.0),
        train_dataset=Dataset.from_list(PAIRS),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    before = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    assert before == pytest.approx(0.693147, abs=1e-6)
    late = trainer.evaluate(Dataset.from_list(PAIRS))["eval_loss"]
    assert late == pytest.approx(trainer.evaluate(trainer.train_dataset)["eval_loss"], rel=1e-6)
    assert late < before


def test_rows_by_the_way_do_not_pass_for_others(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """A data set's id may be given to the next one: the table must not be."""
    trainer = DPOTrainer(
        checkpoint(), args=config(tmp_path), train_dataset=Dataset.from_list(PAIRS)
    )
    seen = [trainer.evaluate(Dataset.from_list(PAIRS[i : i + 1]))["eval_loss"] for i in range(4)]
    assert seen == pytest.approx([0.693147] * 4, abs=1e-5)
