"""One step of DPO with and without a `ref_model`, on however many processes this was launched with.

The job file: {"models": {"own", "foreign"}, "rows", "out", "ways": {name: DeepSpeed's settings}}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain import DPOConfig, DPOTrainer
from posttrain.trainers import reference


def train(job: dict[str, Any], way: str, name: str) -> None:
    folder = f"{job['out']}/{way}"
    os.environ["POSTTRAIN_CACHE"] = f"{folder}/cache"
    args = DPOConfig(
        output_dir=f"{folder}/{name}",
        per_device_train_batch_size=2,
        max_steps=1,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        deepspeed=job["ways"][way],
    )
    ref_model = job["models"]["foreign"] if name == "foreign" else None
    trainer = DPOTrainer(job["models"]["own"], ref_model, args, train_dataset=job["rows"])
    trainer.train()
    table = trainer.reference
    assert table is not None
    everyone = trainer.accelerator.gather(table[None])
    assert all(torch.equal(one, table) for one in everyone)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    reference.CHUNK = 4
    for way in job["ways"]:
        for name in job["models"]:
            train(job, way, name)
            gc.collect()
            unset_hf_deepspeed_config()
            AcceleratorState._reset_state()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
