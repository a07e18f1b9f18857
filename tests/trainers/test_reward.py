"""Reward models: Bradley-Terry on the last token, and checkpoints that everyone can load."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain import RewardConfig, RewardTrainer
from posttrain.errors import DataError
from posttrain.models import load_model
from posttrain.packing import forward_inputs
from posttrain.trainers.calibration import calibration_bins, calibration_error

PAIRS = [
    {"prompt_ids": [10, 11, 12], "chosen_ids": [13, 14, 1], "rejected_ids": [15, 1], "source": "a"},
    {"prompt_ids": [20, 21], "chosen_ids": [22, 1], "rejected_ids": [22, 23, 24, 1], "source": "b"},
    {"prompt_ids": [30], "chosen_ids": [31, 32, 33, 1], "rejected_ids": [34, 1], "source": "a"},
    {"prompt_ids": [40, 41, 42], "chosen_ids": [43, 1], "rejected_ids": [44, 45, 1], "source": "b"},
]


def trainer_of(model: Any, out: Path, rows: Any = PAIRS, **more: Any) -> RewardTrainer:
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
    return RewardTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows))


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
    torch.testing.assert_close(both[0], ours[1, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1], ours[0, 0], rtol=1e-5, atol=1e-6)


def test_loss_and_gradient_are_those_of_a_plain_loop(
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    still = trainer_of(checkpoint("starcoder2"), tmp_path, learning_rate=0.0)
    still.train()
    still.save_model(str(tmp_path / "start"))
    path = str(tmp_path / "start")
    start = AutoModelForSequenceClassification.from_pretrained(path).double()
    loss = plain_loss(start)
    loss.backward()
    model = load_model(path, head="scalar").double()  # continues from the saved head
    trainer = trainer_of(model, tmp_path)
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert logged["loss"] == pytest.approx(loss.item(), rel=1e-9)
    assert logged["loss"] != pytest.approx(0.693147, abs=1e-6)
    expected = {n: p.detach() - 0.1 * p.grad for n, p in start.named_parameters()}
    same_step(dict(model.named_parameters()), expected, dict(start.named_parameters()), 1e-9)


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


def test_margins_and_centring_are_those_of_a_plain_loop(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(
        checkpoint(), tmp_path, learning_rate=0.0, loss=CENTRED, rows=with_margins(PAIRS)
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "start"))
    start = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    total = torch.zeros(())
    for pair, margin in zip(PAIRS, MARGINS, strict=True):
        chosen = score(start, pair["prompt_ids"] + pair["chosen_ids"])
        rejected = score(start, pair["prompt_ids"] + pair["rejected_ids"])
        total = total - F.logsigmoid(chosen - rejected - margin) + 0.1 * (chosen + rejected) ** 2
    assert logged(trainer)["loss"] == pytest.approx(total.item() / 4, rel=1e-5)


def logged(trainer: Any) -> dict[str, float]:
    """What was logged of the first step."""
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


MARGINS = [0.5, 0.0, 1.5, 1.0]
CENTRED = {"name": "bradley_terry", "center_rewards_coefficient": 0.1}


def with_margins(pairs: list[dict[str, Any]], name: str = "margin") -> list[dict[str, Any]]:
    return [{**pair, name: margin} for pair, margin in zip(pairs, MARGINS, strict=True)]


@pytest.mark.parametrize("split", [(4, 1), (1, 4)])
@pytest.mark.parametrize("centring", [None, 0.01])
@pytest.mark.parametrize("margins", [False, True])
def test_loss_gradients_and_metrics_are_trls(
    split: tuple[int, int],
    centring: float | None,
    margins: bool,
    checkpoint: Callable[..., str],
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    from trl import RewardConfig as TheirConfig
    from trl import RewardTrainer as TheirTrainer

    path = str(tmp_path / "start")
    trainer_of(checkpoint("starcoder2"), tmp_path).save_model(path)
    rows = with_margins(PAIRS) if margins else PAIRS
    micro, steps = split
    ours = trainer_of(
        load_model(path, head="scalar").double(),
        tmp_path,
        center_rewards_coefficient=centring,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=steps,
        rows=rows,
    )
    ours.train()
    args = TheirConfig(
        output_dir=str(tmp_path / "theirs"),
        per_device_train_batch_size=4,
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        center_rewards_coefficient=centring,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    sides = ("chosen_ids", "rejected_ids")
    whole = [{s: row["prompt_ids"] + row[s] for s in sides} for row in rows]
    extra = [{"margin": row["margin"]} if margins else {} for row in rows]
    data = Dataset.from_list([a | b for a, b in zip(whole, extra, strict=True)])
    model, start = (
        AutoModelForSequenceClassification.from_pretrained(path).double() for _ in range(2)
    )
    theirs = TheirTrainer(model, args, train_dataset=data, processing_class=ours.processing_class)
    theirs.train()
    mine, trls = logged(ours), logged(theirs)
    names = {
        "loss": "loss",
        "grad_norm": "grad_norm",
        "rewards/accuracies": "accuracy",
        "rewards/margins": "margin",
        "rewards/mean": "mean_reward",
    }
    for our_name, their_name in names.items():
        assert mine[our_name] == pytest.approx(trls[their_name], rel=1e-9), our_name
    same_step(*(dict(m.named_parameters()) for m in (ours.model, model, start)), 1e-9)


def test_rows_of_text_carry_their_margin(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is 12 plus 30?", "chosen": "42", "rejected": "43", "gap": 2},
        {"prompt": "Name an animal.", "chosen": "A cat.", "rejected": "A car.", "gap": 0.25},
    ]
    loss = {"name": "bradley_terry", "margin": "gap"}
    trainer = trainer_of(checkpoint(), tmp_path, loss=loss, rows=rows)
    assert trainer.train_dataset["margin"] == [2.0, 0.25]
    batch = trainer.data_collator(
        [{**row, "index": i} for i, row in enumerate(trainer.train_dataset)]
    )
    assert batch["margin"].tolist() == [2.0, 0.25]


def test_margins_that_are_asked_for_must_be_there(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    loss = {"name": "bradley_terry", "margin": True}
    with pytest.raises(DataError, match="rows have no column 'margin'; add it"):
        trainer_of(checkpoint(), tmp_path, loss=loss)
    rows = with_margins(PAIRS)
    rows[2]["margin"] = None
    with pytest.raises(DataError, match="rows lack `margin` in part"):
        trainer_of(checkpoint(), tmp_path, loss=loss, rows=rows)


def test_margins_that_are_not_asked_for_are_left_out(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    loss = {"name": "bradley_terry", "margin": False}
    trainer = trainer_of(checkpoint(), tmp_path, loss=loss, rows=with_margins(PAIRS))
    batch = trainer.data_collator([{**PAIRS[0], "margin": 1.0, "index": 0}])
    assert "margin" not in batch


def test_evaluation_tells_calibration(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint(), tmp_path, learning_rate=0.0)
    trainer.train()
    assert "calibration_error" not in logged(trainer)
    metrics = trainer.evaluate(Dataset.from_list(PAIRS))
    batch = trainer.data_collator([{**row, "index": i} for i, row in enumerate(PAIRS)])
    with torch.no_grad():
        scores = trainer.scores(trainer.model, batch)
    expected = calibration_error(calibration_bins(scores[:, 0] - scores[:, 1]))
    assert metrics["eval_calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.01


def test_dropout_is_off_unless_asked_for(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    path = checkpoint(attention_dropout=0.5)

    def rates(trainer: RewardTrainer) -> set[float]:
        return {m.attention_dropout for m in trainer.model.modules() if hasattr(m, "q_proj")}

    assert rates(trainer_of(path, tmp_path)) == {0.0}
    assert rates(trainer_of(path, tmp_path, disable_dropout=False)) == {0.5}


def test_a_checkpoint_starts_a_value_model(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint(), tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    values = load_model(str(tmp_path / "model"), head="scalar")
    assert torch.equal(values.score.weight, trainer.model.score.weight)
    assert values.score.bias is None and values.score.weight.shape == (1, 32)
    batch = trainer.data_collator([{**row, "index": i} for i, row in enumerate(PAIRS)])
    with torch.no_grad():
        per_token = values(**forward_inputs(batch)).logits
        ours = trainer.scores(trainer.model, batch)
    assert per_token.shape == (1, batch["input_ids"].shape[1], 1)
    torch.testing.assert_close(per_token[0, batch["last"], 0].view(-1, 2), ours)


def test_a_planted_rule_is_learnt(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    """The answer with more of one symbol is the better one."""
    draw, symbol = random.Random(0), 7

    def side(count: int) -> list[int]:
        ids = [draw.randrange(10, 60) for _ in range(12)]
        for place in draw.sample(range(12), count):
            ids[place] = symbol
        return [*ids, 1]

    def pair() -> dict[str, Any]:
        few, many = sorted(draw.sample(range(9), 2))
        return {"prompt_ids": [9], "chosen_ids": side(many), "rejected_ids": side(few)}

    args = RewardConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=16,
        learning_rate=5e-3,
        num_train_epochs=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    train, held = ([pair() for _ in range(n)] for n in (1200, 300))
    trainer = RewardTrainer(checkpoint(), args, train_dataset=Dataset.from_list(train))
    trainer.train()
    metrics = trainer.evaluate(Dataset.from_list(held))
    assert metrics["eval_rewards/accuracies"] > 0.95
    assert metrics["eval_calibration_error"] < 0.1
