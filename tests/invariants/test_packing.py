"""Packs and token budgets change how a batch is computed, not what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

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
from posttrain.attention import set_attention
from posttrain.models import load_model
from posttrain.packing import Collator, best_fit, forward_inputs, pack_rows, row_lengths

SFT_ROWS = [
    {"prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}." + " Yes." * (n % 5)}
    for n in range(20)
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"It is {n + 1}." + " Yes." * (n % 4),
        "rejected": f"Is it {n}?" + " No." * (n % 3),
    }
    for n in range(20)
]
PROBLEM_ROWS = [{"prompt": f"What is {n}?"} for n in range(10)]
COMMON = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    # plain SGD: the weights move by the gradient itself, so equal weights are equal gradients
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "max_length": 128,
}
RLVR = {
    "num_generations": 4,
    "max_completion_length": 12,
    "num_mini_batches": 2,
    "beta": 0.1,
    "learning_rate": 0.01,
}


def evenness(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


KINDS: dict[str, tuple[Any, Any, Any, dict[str, Any], dict[str, Any]]] = {
    "sft": (SFTTrainer, SFTConfig, SFT_ROWS, {}, {}),
    "dpo": (DPOTrainer, DPOConfig, PAIR_ROWS, {}, {}),
    "reward": (RewardTrainer, RewardConfig, PAIR_ROWS, {}, {}),
    "rlvr": (RLVRTrainer, RLVRConfig, PROBLEM_ROWS, RLVR, {"reward_funcs": evenness}),
}


def trainer_of(kind: str, model: Any, out: Path, **config: Any) -> Any:
    trainer_class, config_class, rows, more, options = KINDS[kind]
    args = config_class(output_dir=str(out), **{**COMMON, **more, **config})
    return trainer_class(model=model, args=args, train_dataset=rows, **options)


def trained(kind: str, path: str, out: Path, **config: Any) -> tuple[list[float], Any]:
    """Losses of every step and the weights at the end, in float64."""
    torch.manual_seed(1)  # of a fresh head
    model = load_model(path, head=KINDS[kind][0].head).double()
    return after(trainer_of(kind, model, out, **config))


def after(trainer: Any) -> tuple[list[float], Any]:
    """Losses of every step of a training, and the weights at its end."""
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize(("kind", "budget"), [("sft", 130), ("dpo", 200), ("reward", 200)])
def test_a_token_budget_gives_the_same_gradient(
    kind: str,
    budget: int,
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    path = checkpoint("starcoder2")
    _, start = trained(kind, path, tmp_path / "start", learning_rate=0.0)
    losses, expected = trained(kind, path, tmp_path / "count")
    for most in (budget, 4096):
        found, weights = trained(kind, path, tmp_path / str(most), max_tokens_per_device=most)
        assert found == pytest.approx(losses, rel=1e-9)
        same_step(weights, expected, start, 1e-9)


def test_a_token_budget_gives_the_same_policy_gradient(
    checkpoint: Callable[..., str], tmp_path: Path, same_step: Callable[..., None]
) -> None:
    """In float32, in which rollouts are kept."""
    (losses, expected), *others = [
        after(trainer_of("rlvr", checkpoint(), tmp_path / str(most), max_tokens_per_device=most))
        for most in (None, 90, 4096)
    ]
    start = dict(AutoModelForCausalLM.from_pretrained(checkpoint()).named_parameters())
    for found, weights in others:
        # a policy loss is a mean of advantages that cancel, each times a ratio near 1 that is
        # known to the rounding of the sampler's float32 log-probs, hence the absolute part
        assert found == pytest.approx(losses, rel=1e-5, abs=5e-7)
        same_step(weights, expected, start, 1e-4)


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward"])
def test_packs_may_be_split_in_any_way(
    kind: str,
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    path = checkpoint("starcoder2")
    packed = {"packing": True, "per_device_train_batch_size": 2, "max_length": 64}
    _, start = trained(kind, path, tmp_path / "start", **{**packed, "learning_rate": 0.0})
    losses, expected = trained(kind, path, tmp_path / "whole", **packed)
    assert len(losses) > 2
    for name, other in (
        ("split", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
        ("budget", {"max_tokens_per_device": 200}),
    ):
        found, weights = trained(kind, path, tmp_path / name, **{**packed, **other})
        assert found == pytest.approx(losses, rel=1e-9)
        same_step(weights, expected, start, 1e-9)


def test_references_of_packed_pairs_are_those_of_their_rows(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    plain, packed, budget = (
        trainer_of("dpo", checkpoint(), tmp_path / name, max_steps=1, **config)
        for name, config in (
            ("plain", {}),
            ("packed", {"packing": True, "per_device_train_batch_size": 2}),
            ("budget", {"max_tokens_per_device": 200}),
        )
    )
    for trainer in (plain, packed, budget):
        trainer.train()
    assert len(set(plain.reference[:, 0].tolist())) == len(PAIR_ROWS)
    torch.testing.assert_close(packed.reference, plain.reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(budget.reference, plain.reference, rtol=1e-5, atol=1e-5)


def test_evaluation_loss_does_not_depend_on_packs(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    found = [
        trainer_of("sft", checkpoint(), tmp_path, **config).evaluate(SFT_ROWS)["eval_loss"]
        for config in ({}, {"packing": True}, {"max_tokens_per_device": 130})
    ]
    assert found[1:] == pytest.approx(found[:1] * 2, rel=1e-6)


@pytest.mark.parametrize(
    "config", [{"packing": True}, {"max_tokens_per_device": 130}], ids=["packs", "budget"]
)
@pytest.mark.parametrize("kind", ["sft", "dpo", "rlvr"])
def test_resumed_equals_uninterrupted(
    kind: str, config: dict[str, Any], checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    if kind == "rlvr" and "packing" in config:
        config = {"max_tokens_per_device": 60, "beta": 0.0}
    model, rows = checkpoint(), 4 if kind == "rlvr" else 2
    more = {
        "optim": "adamw_torch",
        "learning_rate": 3e-3,
        "save_strategy": "steps",
        "num_train_epochs": 2,
        "per_device_train_batch_size": rows,
    }
    whole = trainer_of(kind, model, tmp_path, **more, **config, save_steps=1)
    whole.train()
    steps = whole.state.global_step
    step = steps // 2 + 1  # in the second epoch
    torch.manual_seed(99)
    again = trainer_of(kind, model, tmp_path, **more, **config, save_steps=1)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert again.state.global_step == steps > step
    weights = again.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize(
    ("model_type", "fields"), [("llama", {}), ("mistral", {"sliding_window": 6})]
)
def test_logits_of_a_pack_are_those_of_its_rows_alone(
    model_type: str, fields: dict[str, Any], checkpoint: Callable[..., str]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(model_type, **fields)).eval()
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    for length in (3, 17, 30, 9, 12, 2, 25, 8, 14, 5):
        ids = torch.randint(5, 300, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": ids})
    pairs = [
        {"prompt_ids": a["input_ids"], "chosen_ids": b["input_ids"], "rejected_ids": c["input_ids"]}
        for a, b, c in zip(rows[:3], rows[3:6], rows[6:9], strict=True)
    ]
    for some in (rows, pairs):
        bins = pack_rows(some, max_length=32 if some is rows else 40)
        assert 1 < len(bins) < len(some)
        for b in range(len(bins)):
            members = [{**some[i], "index": i} for i in bins[b].tolist()]
            batch = Collator({})(members)
            assert batch["input_ids"].shape[1] == row_lengths(members).sum()
            set_attention(model)
            with torch.no_grad():
                packed = model(**forward_inputs(batch), use_cache=False).logits[0]
            set_attention(model, "sdpa")
            for seats, ids in alone(members):
                with torch.no_grad():
                    expected = model(input_ids=torch.tensor([ids])).logits[0]
                torch.testing.assert_close(packed[seats], expected, rtol=1e-6, atol=3e-6)


def alone(members: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """Every sequence of a pack: its positions in the pack, and its tokens."""
    found, start = [], 0
    for row in members:
        if "input_ids" in row:
            found.append((list(range(start, start + len(row["input_ids"]))), row["input_ids"]))
            start += len(row["input_ids"])
            continue
        prompt = list(range(start, start + len(row["prompt_ids"])))
        start += len(prompt)
        for side in ("chosen_ids", "rejected_ids"):
            answer = list(range(start, start + len(row[side])))
            found.append((prompt + answer, row["prompt_ids"] + row[side]))
            start += len(answer)
    return found


def test_packs_are_made_of_the_whole_data_set() -> None:
    rows = [{"input_ids": [1] * n, "labels": [1] * n} for n in [9] * 2000 + [1] * 2000]
    bins = pack_rows(rows, 10)  # in windows of 1,000 rows no 9 would ever meet a 1
    assert len(bins) == len(best_fit(row_lengths(rows), 10)) == 2000
