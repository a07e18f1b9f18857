"""Reference log-probs: computed once, found again, resumed, or of another model."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from posttrain import DPOConfig, DPOTrainer
from posttrain.errors import DataError, ModelError, RunError
from posttrain.store import DONE
from posttrain.trainers import reference
from posttrain.trainers.reference import FILE, micro_batches, tables_of

ROWS = [
    {
        "prompt_ids": [10 + n, 20, 30 + n],
        "chosen_ids": [40 + n] * (1 + n % 4) + [1],
        "rejected_ids": [50 + n] * (1 + n // 3) + [1],
        "source": "a",
    }
    for n in range(10)
]
TEXT = [
    {
        "prompt": [{"role": "user", "content": f"What is {n}?"}],
        "chosen": [{"role": "assistant", "content": "It is a number. " * (1 if n else 4)}],
        "rejected": [{"role": "assistant", "content": f"{n}"}],
    }
    for n in range(4)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache."""
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trainer_of(
    model: Any, out: Path, rows: Any = ROWS, ref_model: Any = None, **more: Any
) -> DPOTrainer:
    options = {k: more.pop(k) for k in ("peft_config", "eval_dataset") if k in more}
    settings = {
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 0.05,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    args = DPOConfig(output_dir=str(out), **{**settings, **more})
    return DPOTrainer(model, ref_model, args, train_dataset=rows, **options)


def spied(trainer: DPOTrainer) -> list[list[int]]:
    """The rows of every forward pass from now on."""
    seen: list[list[int]] = []
    inner = trainer.logps

    def logps(model: Any, batch: Any, *rest: Any) -> Any:
        seen.append(batch["index"].tolist())
        return inner(model, batch, *rest)

    trainer.logps = logps  # type: ignore[method-assign]
    return seen


def stores(cache: Path) -> int:
    return len(list(cache.rglob(DONE)))


def first_tables(trainer: DPOTrainer, rows: Any = None) -> torch.Tensor:
    return tables_of(trainer, {"rows": rows if rows is not None else trainer.train_dataset})["rows"]


def test_a_sweep_computes_it_once(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    seen = []
    for i, more in enumerate(
        [
            {},
            {"learning_rate": 0.01, "optim": "adamw_torch", "warmup_steps": 1},
            {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2},
            {"loss": {"name": "ld_dpo", "alpha": 0.3}},
            {"seed": 7, "max_tokens_per_device": 40},
        ]
    ):
        trainer = trainer_of(checkpoint(), tmp_path / str(i), **more)
        forwards = spied(trainer)
        first_tables(trainer)
        seen.append(len(forwards))
    assert seen == [5, 0, 0, 0, 0]


def test_other_tokens_or_weights_are_another_table(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    for i, (model, more) in enumerate(
        [
            (checkpoint(), {}),
            (checkpoint(), {"max_length": 50}),
            (checkpoint(initializer_range=0.1), {}),
            (checkpoint(), {"bf16": True}),
            (checkpoint(), {"rows": TEXT[:3]}),
        ]
    ):
        first_tables(trainer_of(model, tmp_path / "run", **{"rows": TEXT, **more}))
        assert stores(cache) == i + 1


def test_adapters_share_the_table_of_their_base(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig

    full = first_tables(trainer_of(checkpoint(), tmp_path))
    adapter = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = trainer_of(checkpoint(), tmp_path, peft_config=adapter)
    forwards = spied(trainer)
    assert torch.equal(first_tables(trainer), full)
    assert not forwards


def test_found_or_computed_training_is_the_same(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """Neither random draws nor meters may tell whether the table was there."""
    from peft import LoraConfig

    weights, logs = [], []
    for i in range(2):
        adapter = LoraConfig(
            r=2, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = trainer_of(checkpoint(), tmp_path / str(i), peft_config=adapter, max_steps=3)
        trainer.train()
        weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        logs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert logs[0] == logs[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_computation_that_was_cut_off_goes_on(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "CHUNK", 4)
    trainer = trainer_of(checkpoint(), tmp_path)
    inner, calls = trainer.logps, []

    def dies(model: Any, batch: Any) -> Any:
        calls.append(batch["index"])
        if len(calls) > 3:  # in the second chunk of 4 + 4 + 2 rows
            raise KeyboardInterrupt
        return inner(model, batch)

    trainer.logps = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first_tables(trainer)
    again = trainer_of(checkpoint(), tmp_path)
    forwards = spied(again)
    table = first_tables(again)
    assert sum(map(len, forwards)) == 6
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "other"))
    assert torch.equal(first_tables(trainer_of(checkpoint(), tmp_path)), table)


def test_another_run_that_computes_the_same_is_waited_for(
    checkpoint: Callable[..., str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "PATIENCE", 0.05)
    trainer = trainer_of(checkpoint(), tmp_path)
    key = reference.key_for(trainer, trainer.model, trainer.train_dataset)
    assert key is not None
    lock = cache / key[:2] / f"{key}.lock"
    lock.parent.mkdir(parents=True)
    file = lock.open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    threading.Timer(0.5, file.close).start()
    started = time.monotonic()
    table = first_tables(trainer)
    assert time.monotonic() - started > 0.4
    assert table.isfinite().all()


def test_rows_of_like_length_run_together_the_longest_first(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path)
    forwards = spied(trainer)
    first_tables(trainer)
    lengths = reference.row_lengths(ROWS)
    walked = [int(lengths[row]) for rows in forwards for row in rows]
    assert walked == sorted(lengths.tolist(), reverse=True)
    assert [len(rows) for rows in forwards] == [2] * 5


def test_a_budget_of_tokens_is_kept(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    plain = first_tables(trainer_of(checkpoint(), tmp_path))
    trainer = trainer_of(checkpoint(), tmp_path, max_tokens_per_device=30)
    lengths = reference.row_lengths(ROWS)
    parts = micro_batches(trainer, lengths, torch.arange(10).numpy())
    assert sorted(row for part in parts for row in part) == list(range(10))
    assert max(lengths[part].sum() for part in parts) <= 30
    assert len(parts) < 10
    values = reference.logps_of(trainer, trainer.model, ROWS, lengths, torch.arange(10).numpy())
    torch.testing.assert_close(values, plain, rtol=1e-5, atol=1e-5)
    small = trainer_of(checkpoint(), tmp_path, max_tokens_per_device=5)
    with pytest.raises(DataError, match="set max_tokens_per_device to at least"):
        micro_batches(small, lengths, torch.arange(10).numpy())


@pytest.mark.parametrize("given", ["folder", "model"])
def test_a_reference_of_its_own(given: str, checkpoint: Callable[..., str], tmp_path: Path) -> None:
    folder = checkpoint(initializer_range=0.1)
    ref_model = AutoModelForCausalLM.from_pretrained(folder) if given == "model" else folder
    held_out = Dataset.from_list(ROWS[:3])
    trainer = trainer_of(
        checkpoint(), tmp_path, ref_model=ref_model, eval_dataset=held_out, max_steps=1
    )
    trainer.train()
    alone = first_tables(trainer_of(folder, tmp_path / "alone"))
    assert torch.equal(trainer.reference, alone)
    assert not isinstance(trainer.ref_model, torch.nn.Module)
    # margins are not those of a model with itself
    assert trainer.state.log_history[0]["loss"] != pytest.approx(0.693147, abs=1e-3)
    assert trainer.evaluate()["eval_loss"] != pytest.approx(0.693147, abs=1e-3)
    fresh = Dataset.from_list(ROWS[3:5])
    if given == "model":  # it is gone
        with pytest.raises(ValueError, match="`ref_model` that is dropped"):
            trainer.evaluate(fresh)
    else:
        trainer.evaluate(fresh)
        assert torch.equal(trainer.eval_references[id(fresh)][1], alone[3:5])


def test_the_model_itself_as_the_reference(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    trainer = trainer_of(model, tmp_path, ref_model=model)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.693147, abs=1e-6)


def test_a_loss_without_a_reference_takes_and_computes_none(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="compares with no reference; leave it out"):
        trainer_of(checkpoint(), tmp_path, ref_model=checkpoint(), loss="simpo")
    trainer = trainer_of(checkpoint(), tmp_path, loss={"name": "simpo"}, eval_dataset=ROWS)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert stores(cache) == 0
    assert not (tmp_path / FILE).exists()


def test_a_reference_that_is_not_a_number_stops_the_run(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    with torch.no_grad():
        model.get_input_embeddings().weight[43] = float("nan")  # token 43 is in row 3 alone
    trainer = trainer_of(model, tmp_path)
    with pytest.raises(RunError, match="log-prob of row 3 is not finite"):
        trainer.train()
    assert stores(cache) == 0


def test_a_resumed_run_reads_its_own_folder(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    import shutil

    trainer_of(checkpoint(), tmp_path, save_strategy="steps", save_steps=1).train()
    shutil.rmtree(cache)  # it may be deleted at any time
    again = trainer_of(checkpoint(), tmp_path, max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == 3
    fewer = trainer_of(checkpoint(), tmp_path, rows=ROWS[:8], max_steps=3)
    with pytest.raises(RunError, match="is of 10 rows and the data set has 8"):
        fewer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_collator_of_ones_own_is_not_cached(
    checkpoint: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(), tmp_path)
    inner = trainer.data_collator
    trainer.data_collator = lambda rows: inner(rows)
    table = first_tables(trainer)
    assert stores(cache) == 0
    assert torch.equal(table, first_tables(trainer_of(checkpoint(), tmp_path)))
