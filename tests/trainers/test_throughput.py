"""What a step is said to have had and cost, against what its rows have."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from posttrain import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from posttrain.attention import kernels
from posttrain.packing import EMPTY, Group, pack
from posttrain.trainers.flops import ModelFlops, model_flops, peak_flops
from posttrain.trainers.throughput import Speed, Tally

ROWS = [
    {
        "input_ids": list(range(5, 15 + n)),
        "labels": [-100] * 4 + list(range(9, 15 + n)),
        "source": ("a", "b")[n % 2],
    }
    for n in range(7)  # 10 to 16 tokens, all but the first 4 are trained
]
QUIET = {"logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True}


def test_a_micro_batch_is_counted_by_hand() -> None:
    tally = Tally(2)
    # a prompt of 3 under answers of 2 and 4: 9 tokens, rows of 5 and 7 in 2 x 7 cells
    pair = Group([1, 2, 3], [([4, 5], [4, 5]), ([6, 7, 8, 9], [-100, 7, 8, 9])], source=1)
    tally.add(pack([pair]))
    # each token sees itself and what stands before it: 1+2+3, 4+5, 4+5+6+7
    assert tally.counts.tolist() == [9, 9, 5, 12, 14, 6 + 9 + 22]
    assert tally.sources.tolist() == [0, 5]
    tally.add(pack([EMPTY]))  # a process without rows runs two tokens, which are nobody's
    assert tally.counts.tolist() == [9, 11, 5, 12, 16, 37]


def test_rates_and_shares_follow_from_the_counts() -> None:
    speed = Speed(ModelFlops(600.0, 60.0, 6.0), peak=1e4, world=2)
    counts = {"tokens": 90, "computed": 100, "trained": 50, "attended": 120, "cells": 160}
    counts |= {"pairs": 500, "padded": True}
    found = speed.metrics(counts, seconds=4.0)
    flops = 600 * 90 + 60 * 50 + 6 * 500
    assert found == {
        "model_tflops": pytest.approx(flops / 1e12),
        "tokens_per_second": 22.5,
        "trained_tokens_per_second": 12.5,
        "tflops_per_device": pytest.approx(flops / 4 / 2 / 1e12),
        "mfu": pytest.approx(flops / 4 / 2 / 1e4),
        "padding": pytest.approx(0.1),
        "attention_padding": 0.25,
    }
    assert speed.metrics({**counts, "padded": False}, 4.0)["attention_padding"] == 0
    assert speed.metrics(dict.fromkeys(counts, 0), 1.0) == {}


def test_the_clock_stands_still_while_it_is_paused() -> None:
    tally = Tally(1)
    with tally.paused():  # it was not running
        time.sleep(0.02)
    assert (tally.seconds, tally.began) == (0.0, None)
    tally.start()
    time.sleep(0.01)
    with tally.paused(), tally.paused():
        time.sleep(0.2)
    time.sleep(0.01)
    with tally.paused():
        assert 0.02 <= tally.seconds < 0.15


@pytest.mark.parametrize("split", [(4, 1), (1, 4), (2, 2)])
def test_a_step_logs_what_its_rows_had(
    checkpoint: Callable[..., str], tmp_path: Path, split: tuple[int, int]
) -> None:
    args = SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=split[0],
        gradient_accumulation_steps=split[1],
        num_train_epochs=1,
        **QUIET,
    )
    trainer = SFTTrainer(model=checkpoint(), args=args, train_dataset=Dataset.from_list(ROWS))
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 2
    for source, lengths in (("a", (10, 12, 14, 16)), ("b", (11, 13, 15))):
        # the labels of a row but the first 4 of its tokens
        assert sum(e.get(f"tokens/{source}", 0) for e in log) == sum(n - 4 for n in lengths)
    flops, peak = model_flops(trainer.model), peak_flops(torch.device("cpu"), torch.float32)
    for entry in log:
        assert entry["trained_tokens_per_second"] < entry["tokens_per_second"]
        trained = sum(entry.get(f"tokens/{s}", 0) for s in "ab")
        seconds = trained / entry["trained_tokens_per_second"]
        tokens = entry["tokens_per_second"] * seconds
        work = flops(tokens, trained, 0)  # without attention: at most a tenth here
        assert work < entry["tflops_per_device"] * 1e12 * seconds < 1.2 * work
        assert entry["mfu"] == pytest.approx(entry["tflops_per_device"] * 1e12 / peak)
        assert 0.1 < entry["peak_memory_gb"] < 100
        assert entry["skipped_steps"] == 0
        assert {"grad_norm", "learning_rate", "loss/a"} <= set(entry)
    assert log[0]["padding"] == 0
    assert log[0]["attention_padding"] == 0  # on a CPU attention goes part by part


@pytest.mark.parametrize("rows", [1, 4])
def test_padding_is_told_where_the_kernel_pads(
    rows: int, checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "BACK_ENDS", {"padded": kernels.BACK_ENDS["padded"]})
    monkeypatch.setattr(kernels, "TAKEN", set())
    kernels.choose.cache_clear()
    args = SFTConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=rows, max_steps=1, **QUIET
    )
    trainer = SFTTrainer(model=checkpoint(), args=args, train_dataset=Dataset.from_list(ROWS))
    trainer.train()
    kernels.choose.cache_clear()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert (entry["attention_padding"] > 0) == (rows > 1)


def test_an_evaluation_neither_counts_nor_takes_time(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    pairs = [
        {"prompt": f"{n}?", "chosen": f"{n}", "rejected": "No.", "source": "pairs"}
        for n in range(4)
    ]

    class Pause(TrainerCallback):
        trainer: Any

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.trainer.evaluate()

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            time.sleep(0.5)

    pause = Pause()
    args = RewardConfig(output_dir=str(tmp_path), per_device_train_batch_size=2, **QUIET)
    args.num_train_epochs = 1
    trainer = RewardTrainer(
        model=checkpoint(), args=args, train_dataset=pairs, eval_dataset=pairs, callbacks=[pause]
    )
    pause.trainer = trainer
    trainer.train()
    log = trainer.state.log_history
    steps = [entry for entry in log if "loss" in entry]
    evaluated = [entry for entry in log if "eval_loss" in entry]
    assert len(steps) == len(evaluated) == 2
    assert not any("per_second" in name or "tokens" in name for name in evaluated[0])
    read = [entry["tokens/pairs"] for entry in steps]
    assert len(set(read)) == 1  # equal pairs, none of the evaluation's
    seconds = [n / e["trained_tokens_per_second"] for n, e in zip(read, steps, strict=True)]
    assert max(seconds) < 0.5


def test_one_collective_per_log(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = SFTConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, **QUIET)
    args.num_train_epochs = 1
    trainer = SFTTrainer(model=checkpoint(), args=args, train_dataset=Dataset.from_list(ROWS))
    calls: list[int] = []
    gather = trainer.accelerator.gather
    monkeypatch.setattr(
        trainer.accelerator, "gather", lambda t: calls.append(t.numel()) or gather(t)
    )
    trainer.train()
    assert len(calls) == 2  # two steps, two logs
