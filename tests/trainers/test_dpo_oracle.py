"""Every loss of the family equals TRL's on the same pairs and weights: value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from posttrain import DPOConfig, DPOTrainer
from posttrain.losses import preference_loss
from posttrain.losses.base import PairLogps

# ours, and the settings under which TRL computes the same
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpo": ({"beta": 0.3}, {"loss_types": ["sigmoid"], "beta": 0.3}),
    "length-normalised": (
        {"name": "dpo", "beta": 5.0, "length_normalise": True},
        {"loss_types": ["sigmoid_norm"], "beta": 5.0},
    ),
    "ipo": ({"beta": 0.3}, {"loss_types": ["ipo"], "beta": 0.3}),
    "hinge": ({"beta": 0.3}, {"loss_types": ["hinge"], "beta": 0.3}),
    "robust": (
        {"beta": 0.3, "label_smoothing": 0.2},
        {"loss_types": ["robust"], "beta": 0.3, "label_smoothing": 0.2},
    ),
    "apo_zero": ({"beta": 0.3}, {"loss_types": ["apo_zero"], "beta": 0.3}),
    "apo_down": ({"beta": 0.3}, {"loss_types": ["apo_down"], "beta": 0.3}),
    "discopop": ({"beta": 0.05}, {"loss_types": ["discopop"], "beta": 0.05}),
    "ld_dpo": (
        {"beta": 0.3, "alpha": 0.4},
        {"loss_types": ["sigmoid"], "beta": 0.3, "ld_alpha": 0.4},
    ),
    "ld_dpo without tails": (
        {"name": "ld_dpo", "beta": 0.3, "alpha": 0.0},
        {"loss_types": ["sigmoid"], "beta": 0.3, "ld_alpha": 0.0},
    ),
    "wpo": (
        {"beta": 0.3, "max_weight": None},
        {"loss_types": ["sigmoid"], "beta": 0.3, "use_weighting": True},
    ),
    "mixture": (
        {
            "losses": [
                {"name": "dpo", "weight": 0.8, "beta": 0.3},
                {"name": "ipo", "weight": 0.5, "beta": 0.3},
                {"name": "apo_zero", "weight": 2.0, "beta": 0.3},
            ]
        },
        {
            "loss_types": ["sigmoid", "ipo", "apo_zero"],
            "loss_weights": [0.8, 0.5, 2.0],
            "beta": 0.3,
        },
    ),
}
DEFAULTS = {"loss_weights": [1.0], "ld_alpha": None, "use_weighting": False, "label_smoothing": 0.0}
QUIET = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}


def message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


ROWS = [
    {
        "prompt": message("user", f"What is {n}?"),
        "chosen": message("assistant", "It is a number. " * (1 + n % 3)),
        "rejected": message("assistant", f"{n}" + "!" * n),
    }
    for n in range(4)
]


class Theirs:
    """TRL's trainer, its batch of all rows, and a reference of other weights than the policy's."""

    def __init__(self, policy: str, reference: str, tokenizer: Any, out: Path) -> None:
        from trl import DPOConfig as TheirConfig
        from trl import DPOTrainer as TheirTrainer

        args = TheirConfig(
            output_dir=str(out),
            per_device_train_batch_size=4,
            bf16=False,
            gradient_checkpointing=False,
            use_weighting=True,  # switched off below where it is not asked for
            **QUIET,
        )
        self.trainer = TheirTrainer(
            model=AutoModelForCausalLM.from_pretrained(policy),
            ref_model=AutoModelForCausalLM.from_pretrained(reference),
            args=args,
            train_dataset=Dataset.from_list(ROWS),
            processing_class=tokenizer,
        )
        self.trainer.model.eval()
        self.trainer._metrics = {"eval": self.Lists(), "train": self.Lists()}
        [self.batch] = list(self.trainer.get_train_dataloader())

    class Lists(dict[str, list[float]]):
        def __missing__(self, key: str) -> list[float]:
            return self.setdefault(key, [])

    def loss(self, settings: dict[str, Any]) -> tuple[float, list[torch.Tensor], dict[str, float]]:
        for name, value in {**DEFAULTS, **settings}.items():
            setattr(self.trainer, name, value)
        self.trainer.model.zero_grad()
        metrics = self.trainer._metrics["eval"]
        metrics.clear()
        loss = self.trainer._compute_loss(self.trainer.model, self.batch, False)
        loss.backward()
        grads = [p.grad.clone() for p in self.trainer.model.parameters()]
        return loss.item(), grads, {name: values[-1] for name, values in metrics.items()}


@pytest.fixture(scope="module")
def theirs(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theirs]:
    yield Theirs(checkpoint(), other(checkpoint), tokenizer, tmp_path_factory.mktemp("trl"))


def other(checkpoint: Callable[..., str]) -> str:
    """A reference that is not the policy, so that no margin is zero."""
    return checkpoint(initializer_range=0.1)


def ours_of(
    loss: dict[str, Any], checkpoint: Callable[..., str], out: Path
) -> tuple[float, list[torch.Tensor], dict[str, float]]:
    args = DPOConfig(output_dir=str(out), per_device_train_batch_size=4, loss=loss, **QUIET)
    trainer = DPOTrainer(checkpoint(), other(checkpoint), args, train_dataset=ROWS)
    trainer.callback_handler.on_train_begin(args, trainer.state, trainer.control)
    trainer.model.eval()
    [batch] = list(trainer.get_train_dataloader())
    value = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(4.0))
    value.backward()
    metrics = trainer.drain()
    return value.item(), [p.grad for p in trainer.model.parameters()], metrics


@pytest.mark.parametrize("case", SAME)
def test_value_gradient_and_metrics(
    case: str, theirs: Theirs, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    loss, settings = SAME[case]
    value, grads, metrics = ours_of({"name": case, **loss}, checkpoint, tmp_path)
    expected, their_grads, their_metrics = theirs.loss(settings)
    assert value == pytest.approx(expected, rel=1e-5)
    size = max(grad.abs().max().item() for grad in their_grads)
    assert size > 1e-4
    for ours, their in zip(grads, their_grads, strict=True):
        torch.testing.assert_close(ours, their, rtol=1e-5, atol=1e-5 * size)
    names = []
    if not case.startswith(("length", "ipo")):  # TRL reports those unnormalised
        names += [f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")]
    if not case.startswith("ld_dpo"):  # TRL reports the decayed sums
        names += ["logps/chosen", "logps/rejected"]
    for name in names:
        assert metrics[name] == pytest.approx(their_metrics[name], rel=1e-5, abs=1e-6), name


def test_nll_of_answers_of_one_length(
    theirs: Theirs, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """TRL's `sft` weighs tokens alike, `nll` pairs: row by row they are the same."""
    for row in range(4):
        args = DPOConfig(
            output_dir=str(tmp_path), loss="nll", per_device_train_batch_size=1, **QUIET
        )
        trainer = DPOTrainer(checkpoint(), args=args, train_dataset=ROWS[row : row + 1])
        [batch] = list(trainer.get_train_dataloader())
        value = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(1.0))
        whole, theirs.batch = (
            theirs.batch,
            theirs.trainer.data_collator([theirs.trainer.train_dataset[row]]),
        )
        expected, _, _ = theirs.loss({"loss_types": ["sft"]})
        theirs.batch = whole
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_simpo() -> None:
    """TRL has it in an experimental trainer; its loss is a function of averages."""
    from trl.experimental.cpo import CPOTrainer

    generator = torch.Generator().manual_seed(0)
    sums = -20 * torch.rand(2, 6, generator=generator)
    tokens = torch.randint(1, 9, (2, 6), generator=generator)
    mine = sums.clone().requires_grad_()
    losses = preference_loss({"name": "simpo", "beta": 2.5, "gamma": 0.5})(
        PairLogps(*mine.unbind(), *tokens.unbind()), None
    )
    losses.losses.mean().backward()
    settings = SimpleNamespace(
        loss_type="simpo",
        alpha=0.0,
        beta=2.5,
        simpo_gamma=0.5,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    theirs = sums.clone().requires_grad_()
    expected, chosen, rejected = CPOTrainer.cpo_loss(settings, *(theirs / tokens).unbind())
    expected.mean().backward()
    torch.testing.assert_close(losses.losses, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(losses.chosen_rewards, chosen)
    torch.testing.assert_close(losses.rejected_rewards, rejected)
