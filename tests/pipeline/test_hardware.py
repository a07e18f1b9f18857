"""How a global batch is made up is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.errors import RecipeError
from posttrain.pipeline.hardware import batch_line, need_compiler
from posttrain.recipe import DPO, RLVR, SFT, Source, Stage

ROWS = (Source(path="rows.jsonl"),)


@pytest.mark.parametrize(
    ("stage", "world", "line"),
    [
        # 48 rows on 2 processes are 24 each; 4096 // 512 = 8 of them fit in one micro-batch
        (
            SFT(datasets=ROWS, batch_size=48, max_length=512),
            2,
            "sft: batch of 48 = 8 x 3 accumulation x 2 process(es)",
        ),
        # 64 completions in 2 mini-batches are 32 a step; 4096 // (512 + 512) = 4 fit
        (
            RLVR(
                datasets=ROWS,
                batch_size=64,
                num_mini_batches=2,
                max_prompt_length=512,
                max_completion_length=512,
            ),
            1,
            "rlvr: batch of 64 = 4 x 8 accumulation x 1 process(es) x 2 mini-batches",
        ),
        # 12 packs on 2 processes are 6 each; 4096 // 2048 = 2 of them fit
        (
            SFT(datasets=ROWS, batch_size=12, max_length=2048, packing=True),
            2,
            "sft: batch of 12 packs of 2048 tokens = 2 x 3 accumulation x 2 process(es)",
        ),
        # a pack of pairs has room for two sides of max_length
        (
            DPO(datasets=ROWS, batch_size=12, max_length=2048, packing=True),
            2,
            "dpo: batch of 12 packs of 4096 tokens = 1 x 6 accumulation x 2 process(es)",
        ),
        (
            SFT(datasets=ROWS, batch_size=48, max_length=512, max_tokens_per_device=8192),
            2,
            "sft: batch of 48 = 24 x 2 process(es), in micro-batches of at most 8192 tokens",
        ),
        (
            RLVR(datasets=ROWS, batch_size=64, num_mini_batches=2, max_tokens_per_device=4096),
            1,
            "rlvr: batch of 64 = 32 x 1 process(es), in micro-batches of at most 4096 tokens"
            " x 2 mini-batches",
        ),
    ],
)
def test_the_batch_line(stage: Stage, world: int, line: str) -> None:
    assert batch_line(stage, world) == line


def test_an_optimizer_on_the_cpu_needs_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing is installed there
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeError, match=r"c\+\+ and ninja cannot .*zero_force_ds_cpu_optimizer"):
        need_compiler(offload)
    need_compiler({**offload, "zero_force_ds_cpu_optimizer": False})
    need_compiler({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}})
    for name, lacking in (("c++", "use, and ninja cannot"), ("ninja", "Python.h cannot")):
        with monkeypatch.context() as patch:
            if name == "ninja":
                patch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "include"))
            (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
            (tmp_path / name).chmod(0o755)
            with pytest.raises(RecipeError, match=lacking):
                need_compiler(offload)
    need_compiler(offload)
