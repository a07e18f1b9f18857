"""Trains what a job file says, on however many processes this was launched with.

The job file: {"runs": [{"kind", "model", "rows", "out", "config", "deepspeed"}, ...]}.
Rank 0 writes `<out>/log.json`, what was logged at each step; the model stands in `<out>/model`.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

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

KINDS = {
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "reward": (RewardTrainer, RewardConfig),
    "rlvr": (RLVRTrainer, RLVRConfig),
}


def shortness(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs within any group: fewer letters are better."""
    return [1 / (1 + len(completion[0]["content"])) for completion in completions]


def train(run: dict[str, Any]) -> None:
    trainer_class, config_class = KINDS[run["kind"]]
    out = Path(run["out"])
    args = config_class(
        output_dir=str(out / "checkpoints"),
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        lr_scheduler_type="constant",
        deepspeed=run["deepspeed"],
        **run["config"],
    )
    options = {"reward_funcs": shortness} if run["kind"] == "rlvr" else {}
    trainer = trainer_class(model=run["model"], args=args, train_dataset=run["rows"], **options)
    trainer.train()
    trainer.save_model(str(out / "model"))
    if trainer.accelerator.is_main_process:
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        (out / "log.json").write_text(json.dumps(steps), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    del trainer
    gc.collect()
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state()


def main() -> None:
    for run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["runs"]:
        train(run)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
