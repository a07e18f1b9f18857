"""The loop of transformers' Trainer runs a list of micro-batches as one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain import DPOConfig, DPOTrainer, RLVRConfig, RLVRTrainer, SFTConfig, SFTTrainer
from posttrain.errors import DataError, RecipeError
from posttrain.trainers.micro_batches import each

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}." * (1 + n % 5)} for n in range(12)]
PAIRS = [{**row, "chosen": row["completion"], "rejected": "No."} for row in ROWS]
QUIET = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "max_length": 64}


def test_each_unfolds_steps() -> None:
    assert list(each([1, [2, 3], []])) == [1, 2, 3]


def test_a_budget_folds_accumulation_into_the_rows_of_a_step(tmp_path: Path) -> None:
    args = SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        max_tokens_per_device=64,
    )
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (6, 1)
    assert args.global_batch == 6


def test_no_forward_pass_is_above_the_budget(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=6,
        max_tokens_per_device=100,
        num_train_epochs=1,
        logging_steps=1,
        include_num_input_tokens_seen="all",
        **QUIET,
    )
    trainer = SFTTrainer(model=checkpoint(), args=args, train_dataset=ROWS, eval_dataset=ROWS)
    seen: list[int] = []
    inner = trainer.loss_sum
    trainer.loss_sum = lambda model, batch: (  # type: ignore[method-assign]
        seen.append(batch["input_ids"].shape[1]) or inner(model, batch)  # type: ignore[func-returns-value]
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert len(seen) > 4  # several forward passes in a step
    assert max(seen) <= 100
    assert trainer.state.num_input_tokens_seen == sum(seen)
    assert trainer.state.total_flos > 0
    seen.clear()
    trainer.evaluate()
    assert max(seen) <= 100 < sum(seen)


def test_rows_above_the_budget_and_packs_are_refused(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = DPOConfig(output_dir=str(tmp_path), max_tokens_per_device=20, **QUIET)
    with pytest.raises(DataError, match=r"max_tokens_per_device is 20, but the longest row has"):
        DPOTrainer(model=checkpoint(), args=args, train_dataset=PAIRS).train()
    with pytest.raises(RecipeError, match="set max_tokens_per_device"):
        RLVRConfig(output_dir=str(tmp_path), packing=True)
    problems = [{"prompt": "What is 1?", "ground_truth": "1", "verifier": "string_match"}]
    config = RLVRConfig(
        output_dir=str(tmp_path),
        max_tokens_per_device=20,
        max_completion_length=16,
        **{**QUIET, "max_length": 128},
    )
    with pytest.raises(DataError, match="the longest prompt with its completion has"):
        RLVRTrainer(model=checkpoint(), args=config, train_dataset=problems).train()
