"""SFT equals a plain fp32 loop and TRL's trainer on the same tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from posttrain import SFTConfig, SFTTrainer
from posttrain.errors import DataError, ModelError

TOKENS = [
    {"input_ids": [10, 11, 12, 13, 14], "labels": [-100, -100, 12, 13, 14], "source": "a"},
    {"input_ids": [20, 21, 22], "labels": [-100, 21, 22], "source": "b"},
    {"input_ids": [30, 31, 32, 33, 34, 35], "labels": [-100] * 5 + [35], "source": "a"},
    {"input_ids": [40, 41, 42, 43], "labels": [-100, 41, -100, 43], "source": "b"},
]
COUNTS = [3, 2, 1, 2]  # trained tokens of each row


def config(out: Path, **more: Any) -> SFTConfig:
    values = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return SFTConfig(output_dir=str(out), **{**values, **more})


def plain_nll(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """Loss of each trained token of one row, forwarded alone without any of our code."""
    logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
    labels = torch.tensor(row["labels"][1:])
    return F.cross_entropy(logits[labels != -100], labels[labels != -100], reduction="none")


def reduce(per_row: list[torch.Tensor], reduction: str) -> torch.Tensor:
    """The three reductions over the global batch, spelt out."""
    if reduction == "token_mean":
        return torch.cat(per_row).mean()
    if reduction == "sum":
        return torch.cat(per_row).sum() / len(per_row)
    return torch.stack([nll.mean() for nll in per_row]).mean()


def logged(trainer: Any) -> dict[str, float]:
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


def test_the_constructor_takes_what_trl_takes() -> None:
    from trl import SFTTrainer as Theirs

    ours = list(inspect.signature(SFTTrainer.__init__).parameters)
    theirs = list(inspect.signature(Theirs.__init__).parameters)
    wanted = ["model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class"]
    assert ours[1:7] == theirs[1:7] == wanted
    assert {"callbacks", "optimizers", "peft_config"} <= set(ours) & set(theirs)


@pytest.mark.parametrize("reduction", ["token_mean", "sum", "sequence_mean"])
def test_loss_and_gradient_are_those_of_a_plain_loop(
    reduction: str,
    checkpoint: Callable[..., str],
    tokenizer: Any,
    tmp_path: Path,
    float64: None,
    same_step: Callable[..., None],
) -> None:
    path = checkpoint("starcoder2")
    start, model = (AutoModelForCausalLM.from_pretrained(path).double() for _ in range(2))
    loss = reduce([plain_nll(start, row) for row in TOKENS], reduction)
    loss.backward()
    trainer = SFTTrainer(
        model=model,
        args=config(tmp_path, loss_reduction=reduction),
        train_dataset=Dataset.from_list(TOKENS),
        processing_class=tokenizer,
    )
    trainer.train()
    assert logged(trainer)["loss"] == pytest.approx(loss.item(), rel=1e-9)
    expected = {n: p.detach() - 0.01 * p.grad for n, p in start.named_parameters()}
    same_step(dict(model.named_parameters()), expected, dict(start.named_parameters()), 1e-9)


def test_the_reductions_differ_by_hand(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    per_row = [plain_nll(model, row).detach() for row in TOKENS]
    assert [len(nll) for nll in per_row] == COUNTS
    token_mean, summed, sequence_mean = (
        reduce(per_row, name).item() for name in ("token_mean", "sum", "sequence_mean")
    )
    assert summed == pytest.approx(token_mean * sum(COUNTS) / 4, rel=1e-6)
    assert abs(sequence_mean - token_mean) > 1e-3


@pytest.mark.parametrize("accumulated", [False, True], ids=["at once", "accumulated"])
def test_losses_and_gradients_equal_trl(
    accumulated: bool,
    checkpoint: Callable[..., str],
    tokenizer: Any,
    tmp_path: Path,
    same_step: Callable[..., None],
) -> None:
    """In float32, as TRL's loss is; so large a step that the weights' rounding does not count."""
    from trl import SFTConfig as TheirConfig
    from trl import SFTTrainer as Theirs

    rows = Dataset.from_list([{k: row[k] for k in ("input_ids", "labels")} for row in TOKENS])
    theirs = Theirs(
        model=checkpoint(),
        args=TheirConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=2 if accumulated else 4,
            gradient_accumulation_steps=2 if accumulated else 1,
            max_steps=1,
            optim="sgd",
            learning_rate=100.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    theirs.train()
    args = config(tmp_path / "ours", learning_rate=100.0)
    ours = SFTTrainer(model=checkpoint(), args=args, train_dataset=rows)
    ours.train()
    for key in ("loss", "grad_norm"):
        assert logged(ours)[key] == pytest.approx(logged(theirs)[key], rel=1e-5)
    models = (ours.model, theirs.model, AutoModelForCausalLM.from_pretrained(checkpoint()))
    same_step(*(dict(model.named_parameters()) for model in models), 1e-5)


def test_gradient_checkpointing_changes_nothing(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    weights = []
    for on in (False, True):
        trainer = SFTTrainer(
            model=checkpoint(),
            args=config(tmp_path, gradient_checkpointing=on),
            train_dataset=Dataset.from_list(TOKENS),
        )
        trainer.train()
        weights.append(trainer.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-6, atol=1e-8, msg=name)


def test_metrics_are_kept_per_source(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    per_row = [plain_nll(model, row).detach() for row in TOKENS]
    trainer = SFTTrainer(
        model=checkpoint(), args=config(tmp_path), train_dataset=Dataset.from_list(TOKENS)
    )
    trainer.train()
    entry = logged(trainer)
    assert entry["loss/a"] == pytest.approx(torch.cat(per_row[0::2]).mean().item(), rel=1e-5)
    assert entry["loss/b"] == pytest.approx(torch.cat(per_row[1::2]).mean().item(), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_evaluation_loss_weighs_tokens_whatever_the_batch(
    batch: int, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    expected = torch.cat([plain_nll(model, row) for row in TOKENS]).mean().item()
    trainer = SFTTrainer(
        model=checkpoint(),
        args=config(tmp_path, per_device_eval_batch_size=batch),
        train_dataset=Dataset.from_list(TOKENS),
        eval_dataset={"held": Dataset.from_list(TOKENS), "first": Dataset.from_list(TOKENS[:1])},
    )
    metrics = trainer.evaluate()
    assert metrics["eval_held_loss"] == pytest.approx(expected, rel=1e-5)
    alone = plain_nll(model, TOKENS[0]).mean().item()
    assert metrics["eval_first_loss"] == pytest.approx(alone, rel=1e-5)
    assert metrics["eval_first_loss/a"] == pytest.approx(alone, rel=1e-5)


def test_evaluation_during_training_leaves_the_training_metrics_alone(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    entries = []
    for strategy in ("no", "steps"):
        args = config(tmp_path, max_steps=2, logging_steps=2, eval_strategy=strategy, eval_steps=1)
        trainer = SFTTrainer(
            model=checkpoint(),
            args=args,
            train_dataset=Dataset.from_list(TOKENS),
            eval_dataset=Dataset.from_list(TOKENS[:1]),
        )
        trainer.train()
        entries.append(logged(trainer))
    assert entries[0]["loss/b"] == pytest.approx(entries[1]["loss/b"], rel=1e-6)


def test_raw_rows_tokenizer_callbacks_and_a_saved_model(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    seen: list[int] = []

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.global_step)

    trainer = SFTTrainer(
        model=checkpoint(),
        args=config(tmp_path, max_steps=3),
        train_dataset=[{"prompt": "Hi", "completion": "Hello."}] * 4,
        callbacks=[Steps()],
    )
    trainer.train()
    assert seen == [1, 2, 3]
    trainer.save_model(str(tmp_path / "model"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.config.use_cache is True
    assert "<|assistant|>" in trainer.processing_class.chat_template
    assert (tmp_path / "model" / "chat_template.jinja").is_file()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_a_peft_config_trains_adapters_only(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from peft import LoraConfig

    trainer = SFTTrainer(
        model=checkpoint(),
        args=config(tmp_path, learning_rate=1.0),
        train_dataset=Dataset.from_list(TOKENS),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in name for name in moved)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([{"input_ids": [1, 2]}], "need `labels`"),
        ([{"prompt": "a", "completion": "b"}, {"text": "c"}], "row 1: an SFT row needs"),
    ],
)
def test_unusable_rows_are_refused(
    rows: Any, message: str, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        SFTTrainer(model=checkpoint(), args=config(tmp_path), train_dataset=rows)


def test_an_unknown_reduction_and_a_missing_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed are token_mean, sum, sequence_mean"):
        config(tmp_path, loss_reduction="mean")
    with pytest.raises(ModelError, match="does not exist"):
        SFTTrainer(model=str(tmp_path / "nowhere"), args=config(tmp_path), train_dataset=TOKENS)


@pytest.mark.parametrize("template", ["llama-3", "chatml"])
def test_a_saved_model_stops_where_it_was_trained_to(tmp_path: Path, template: str) -> None:
    """The end of a turn is a token of its own there, and not the tokenizer's EOS."""
    from posttrain.generation.local import eos_ids
    from posttrain.scratch import new_model, new_tokenizer
    from posttrain.tokens import stop_ids

    tokenizer = new_tokenizer(["What is two and two? It is four."] * 4, 320, template)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
    new_model({"model_type": "llama", **shape, **heads}, tokenizer, tmp_path / "start", 0)
    rows = [{"prompt": "two and two?", "completion": "four"}] * 4
    args = config(tmp_path / "run", max_length=256)
    trainer = SFTTrainer(str(tmp_path / "start"), args, train_dataset=rows)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    stops = stop_ids(tokenizer)
    assert len(stops) == 2 and tokenizer.eos_token_id in stops
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert sorted(saved.generation_config.eos_token_id) == stops
    assert eos_ids(saved, tokenizer) == stops
