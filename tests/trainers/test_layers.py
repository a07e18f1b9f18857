"""Layers that are recomputed, all or some, or compiled give the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers.modeling_layers import GradientCheckpointingLayer

from posttrain import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from posttrain.errors import ModelError
from posttrain.models import Adapter, compile_layers
from posttrain.pipeline.stage import recomputation

SFT_ROWS = [{"prompt": f"Say {n}!", "completion": f"It is {n}." * (1 + n % 3)} for n in range(8)]
PAIR_ROWS = [
    {"prompt": f"Say {n}!", "chosen": f"It is {n}.", "rejected": "No." * (1 + n % 3)}
    for n in range(8)
]
KINDS = {
    "sft": (SFTTrainer, SFTConfig, SFT_ROWS),
    "dpo": (DPOTrainer, DPOConfig, PAIR_ROWS),
    "reward": (RewardTrainer, RewardConfig, PAIR_ROWS),
}


def trained(
    kind: str, model: str, out: Path, adapter: bool = False, **more: Any
) -> tuple[Any, dict[str, torch.Tensor]]:
    """A trainer after four steps of plain SGD, whose weights are sums of gradients."""
    trainer_class, config_class, rows = KINDS[kind]
    args = config_class(
        output_dir=str(out),
        per_device_train_batch_size=2,
        optim="sgd",
        learning_rate=0.05,
        num_train_epochs=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **more,
    )
    options = {"peft_config": Adapter(r=4)} if adapter else {}
    trainer = trainer_class(model, args=args, train_dataset=rows, **options)
    trainer.train()
    return trainer, {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


def layers_of(trainer: Any) -> list[Any]:
    return [m for m in trainer.model.modules() if isinstance(m, GradientCheckpointingLayer)]


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("every", [1, 2])
def test_layers_may_be_recomputed(
    every: int, adapter: bool, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    model = checkpoint(num_hidden_layers=3)
    _, expected = trained("sft", model, tmp_path, adapter)
    trainer, found = trained("sft", model, tmp_path, adapter, **recomputation(every))
    chosen = [layer.gradient_checkpointing for layer in layers_of(trainer)]
    assert chosen == [i % every == 0 for i in range(3)]
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-8, msg=name)


def test_no_layer_is_recomputed_unless_asked() -> None:
    assert recomputation(0) == {}


@pytest.mark.parametrize(
    "kind", ["sft", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dpo", "reward"))]
)
def test_layers_may_be_compiled(kind: str, checkpoint: Callable[..., str], tmp_path: Path) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = checkpoint()
    _, expected = trained(kind, model, tmp_path)
    assert not counters["frames"]["total"]
    trainer, found = trained(kind, model, tmp_path, compile_layers="eager")
    # two layers and packs of many lengths: one graph, and where nothing needs gradients another
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-7, msg=name)
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no layers of transformers' kind"):
        compile_layers(torch.nn.Linear(2, 2), "eager")
