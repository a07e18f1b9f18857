"""Every policy loss equals TRL's on the same completions and weights: value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps, num_items, token_weights

PROMPT, LONGEST, ALLOWED = 4, 7, 10
LENGTHS = torch.tensor([7, 3, 5, 1])
ADVANTAGES = torch.tensor([1.5, -0.5, -2.0, 0.7])
SEGMENT = torch.repeat_interleave(torch.arange(4), LENGTHS)

# ours, our reduction, the KL's weight, and the settings under which TRL computes the same
SAME: dict[str, tuple[dict[str, Any], str, float, dict[str, Any]]] = {
    "grpo": ({"name": "grpo"}, "sequence_mean", 0.0, {"loss_type": "grpo"}),
    "grpo with a KL": ({"name": "grpo"}, "sequence_mean", 0.3, {"loss_type": "grpo"}),
    "grpo over all tokens": ({"name": "grpo"}, "token_mean", 0.3, {"loss_type": "bnpo"}),
    "ppo with two clips": (
        {"name": "ppo", "epsilon": 0.1, "epsilon_high": 0.3, "dual_clip": 1.6},
        "token_mean",
        0.0,
        {"loss_type": "bnpo", "epsilon_low": 0.1, "epsilon_high": 0.3, "delta": 1.6},
    ),
    "dr_grpo": ({"name": "dr_grpo"}, "max_length", 0.0, {"loss_type": "dr_grpo"}),
    "dapo": ({"name": "dapo"}, "token_mean", 0.0, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "cispo": (
        {"name": "cispo", "epsilon_high": 0.4},
        "token_mean",
        0.0,
        {"loss_type": "cispo", "epsilon_high": 1.4},  # there it is the bound itself
    ),
    "gspo": (
        {"name": "gspo", "epsilon": 0.05, "epsilon_high": 0.1},
        "sequence_mean",
        0.2,
        {"loss_type": "grpo", "epsilon_low": 0.05, "epsilon_high": 0.1, "level": "sequence"},
    ),
    "luspo": (
        {"name": "gspo", "epsilon": 0.05, "epsilon_high": 0.1},
        "sum",
        0.0,
        {"loss_type": "luspo", "epsilon_low": 0.05, "epsilon_high": 0.1, "level": "sequence"},
    ),
    "sapo": ({"name": "sapo"}, "sequence_mean", 0.1, {"loss_type": "sapo"}),
    "truncated importance sampling": (
        {"name": "dapo", "importance": {"name": "truncate", "cap": 1.1}},
        "token_mean",
        0.3,
        {"loss_type": "dapo", "epsilon_high": 0.28, "importance": ("token", "truncate")},
    ),
    "an unbiased KL": (
        {"name": "grpo", "unbiased_kl": True},
        "sequence_mean",
        0.3,
        {"loss_type": "grpo", "unbiased": True},
    ),
    "masked sequences": (
        {
            "name": "grpo",
            "importance": {"name": "mask", "low": 0.9, "high": 1.5, "level": "sequence"},
        },
        "sequence_mean",
        0.0,
        {"loss_type": "grpo", "importance": ("sequence", "mask")},
    ),
}  # fmt: skip


def completions() -> torch.Tensor:
    """`[4, PROMPT + LONGEST]` tokens; what is behind a completion's length is padding."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 300, (4, PROMPT + LONGEST), generator=generator)


def mask() -> torch.Tensor:
    return torch.arange(LONGEST) < LENGTHS[:, None]


def noise(seed: int) -> torch.Tensor:
    """`[4, LONGEST]` by how much another policy's log-probs differ."""
    return 0.3 * torch.randn(4, LONGEST, generator=torch.Generator().manual_seed(seed))


def logps_of(model: Any) -> torch.Tensor:
    """`[4, LONGEST]` as plain as can be, one completion at a time, zeros in the padding."""
    rows = []
    for ids, length in zip(completions(), LENGTHS.tolist(), strict=True):
        logits = model(ids[None, : PROMPT + length]).logits[0, PROMPT - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, ids[PROMPT : PROMPT + length, None])[:, 0]
        rows.append(torch.nn.functional.pad(chosen, (0, LONGEST - length)))
    return torch.stack(rows)


class Theirs:
    """TRL's trainer, asked for the loss of planted completions."""

    def __init__(self, model: str, tokenizer: Any, out: Path) -> None:
        from trl import GRPOConfig, GRPOTrainer

        args = GRPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=ALLOWED,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        self.trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=args,
            train_dataset=Dataset.from_list([{"prompt": "a"}]),
            processing_class=tokenizer,
        )
        self.trainer.model.eval()

    def loss(
        self, settings: dict[str, Any], beta: float, base: torch.Tensor
    ) -> tuple[float, list[torch.Tensor]]:
        trainer, ids = self.trainer, completions()
        trainer.loss_type, trainer.beta = settings["loss_type"], beta
        trainer.epsilon_low = settings.get("epsilon_low", 0.2)
        trainer.epsilon_high = settings.get("epsilon_high", 0.2)
        trainer.args.delta = settings.get("delta")
        trainer.args.use_bias_correction_kl = settings.get("unbiased", False)
        trainer.importance_sampling_level = settings.get("level", "token")
        trainer.use_vllm = "importance" in settings
        inputs = {
            "prompt_ids": ids[:, :PROMPT],
            "prompt_mask": torch.ones(4, PROMPT, dtype=torch.long),
            "completion_ids": ids[:, PROMPT:],
            "completion_mask": mask().long(),
            "advantages": ADVANTAGES,
            "old_per_token_logps": base + noise(1),
            "ref_per_token_logps": base + noise(2),
            "num_items_in_batch": mask().sum(),
        }
        if "importance" in settings:  # as TRL computes it after its server has answered
            gap = (noise(1) - noise(3)) * mask()
            level, mode = settings["importance"]
            ratio = (gap.sum(1, keepdim=True) if level == "sequence" else gap).exp()
            outside = (ratio < 0.9) | (ratio > 1.5)
            inputs["importance_sampling_ratio"] = (
                ratio.clamp(max=1.1) if mode == "truncate" else ratio.masked_fill(outside, 0.0)
            )
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in trainer.model.parameters()]


@pytest.fixture(scope="module")
def theirs(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theirs]:
    yield Theirs(checkpoint(), tokenizer, tmp_path_factory.mktemp("trl"))


@pytest.mark.parametrize("case", SAME)
def test_value_and_gradient(case: str, theirs: Theirs, checkpoint: Callable[..., str]) -> None:
    spec, reduction, beta, settings = SAME[case]
    model = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
    logps, kept = logps_of(model), mask()
    base, loss = logps.detach(), policy_loss(spec)
    batch = TokenLogps(
        logps[kept],
        *((base + noise(seed))[kept] for seed in (1, 2, 3)),
        segment=SEGMENT,
        tokens=LENGTHS,
    )
    losses = loss(batch, ADVANTAGES[SEGMENT], beta)
    total = (losses * token_weights(LENGTHS, SEGMENT, reduction)).sum()
    total = total / num_items(LENGTHS, reduction, ALLOWED)
    total.backward()
    expected, gradients = theirs.loss(settings, beta, base)
    # what a loss near 0 is made of is of the order of 1
    assert total.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    size = max(gradient.abs().max().item() for gradient in gradients)
    assert size > 1e-4
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5 * size)


def test_the_clips_act_on_these_completions() -> None:
    """Noise of 0.3 takes ratios past the bounds on both sides: the cases above see both."""
    batch = TokenLogps(torch.zeros(16), noise(1)[mask()], segment=SEGMENT, tokens=LENGTHS)
    for spec, *_ in SAME.values():
        if spec["name"] != "sapo":
            share = policy_loss(spec).clipped(batch, ADVANTAGES[SEGMENT]).float().mean()
            assert 0.1 < share < 0.9
