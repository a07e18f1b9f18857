"""Trains what a job file says, on however many processes this was launched with.

The job file: {"runs": [{"way", "kind", "model", "rows", "out", "config"}, ...]}; a run may also
have an "adapter", "rates" (the learning rate of each step), "exact" (train in float64), "resume" (a
checkpoint to go on from) and "refused" (a pattern of what `train` must say instead of training).
Rank 0 writes `<out>/log.json`, what was logged at each step; the model stands in `<out>/model`.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback
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
from posttrain.errors import RunError
from posttrain.generation.local import generate_ids
from posttrain.models import Adapter, load_model
from posttrain.trainers import reference, rolling

KINDS = {
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "reward": (RewardTrainer, RewardConfig),
    "rlvr": (RLVRTrainer, RLVRConfig),
}
ON_CPU = {"device": "cpu"}


def zero(stage: int, **more: Any) -> dict[str, Any]:
    """DeepSpeed's settings, so that weights this small are partitioned too."""
    small = {"stage3_param_persistence_threshold": 0, "stage3_max_reuse_distance": 0}
    gather = {"stage3_gather_16bit_weights_on_model_save": True}
    settings = {
        "zero_optimization": {"stage": stage, **gather, **small, **more},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,  # plain SGD, whose steps are gradients
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own is compiled first: minutes
    }
    return {"deepspeed": settings}


def with_own_adam(way: dict[str, Any]) -> dict[str, Any]:
    """The same, as a run has it: the optimizer on the CPU is DeepSpeed's own, compiled there."""
    return {"deepspeed": {**way["deepspeed"], "zero_force_ds_cpu_optimizer": True}}


FSDP = {"version": 2, "transformer_layer_cls_to_wrap": "Starcoder2DecoderLayer"}
ENGINES = {"single": "NO", "ddp": "MULTI_CPU", "fsdp2": "FSDP"}  # what accelerate calls them
WAYS: dict[str, dict[str, Any]] = {
    "single": {},
    "ddp": {},
    "zero1": zero(1),
    "zero2": zero(2),
    "zero3": zero(3),
    "zero2_offload": zero(2, offload_optimizer=ON_CPU),
    "zero3_offload": zero(3, offload_optimizer=ON_CPU, offload_param=ON_CPU),
    "fsdp2": {"fsdp": True, "fsdp_config": FSDP},
}
OWN_ADAM = {f"{name}_own": with_own_adam(WAYS[name]) for name in ("zero2_offload", "zero3_offload")}
WAYS |= OWN_ADAM


def shortness(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs within any group: fewer letters are better."""
    return [1 / (1 + len(completion[0]["content"])) for completion in completions]


class Rates(TrainerCallback):
    """Gives each step a learning rate of its own."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for group in given["optimizer"].param_groups:
            group["lr"] = self.rates[state.global_step]


def in_float64(path: str, head: str) -> Any:
    """A model in float64; what is made from now on is too, the sums of what is logged included."""
    torch.manual_seed(1)  # of a fresh head
    model = load_model(path, head=head).double()
    torch.set_default_dtype(torch.float64)
    reference.COLUMNS["logps"] = "float64"
    return model


def watch_parts(trainer: Any) -> None:
    """Under ZeRO-3 the policy is whole while it writes, and its value model stays in parts."""
    complete = rolling.generate_ids

    def watched(model: Any, *args: Any, **options: Any) -> Any:
        assert all(p.numel() for p in model.model.parameters())
        assert not any(p.numel() for p in trainer.value_model.parameters())
        return complete(model, *args, **options)

    rolling.generate_ids = watched


def train(run: dict[str, Any]) -> None:
    trainer_class, config_class = KINDS[run["kind"]]
    out = Path(run["out"])
    args = config_class(
        output_dir=str(out / "checkpoints"),
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        **json.loads(json.dumps(WAYS[run["way"]])),  # they are written into
        **{"save_strategy": "no", "lr_scheduler_type": "constant", **run["config"]},
    )
    if run["way"] == "fsdp2":  # accelerate has FSDP on devices alone, though torch shards on CPUs
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    options: dict[str, Any] = {"reward_funcs": shortness} if run["kind"] == "rlvr" else {}
    if run.get("adapter"):
        options["peft_config"] = Adapter(**run["adapter"])
    if "rates" in run:
        options["callbacks"] = [Rates(run["rates"])]
    model = in_float64(run["model"], trainer_class.head) if run.get("exact") else run["model"]
    trainer = trainer_class(model=model, args=args, train_dataset=run["rows"], **options)
    engine = trainer.accelerator.distributed_type
    assert engine == ENGINES.get(run["way"], "DEEPSPEED"), (run["way"], engine)
    if run["way"].startswith("zero3") and getattr(trainer, "value_model", None) is not None:
        watch_parts(trainer)
    if "refused" in run:
        refused(trainer, run["resume"], run["refused"])
        return
    trainer.train(resume_from_checkpoint=run.get("resume"))
    if run["way"] in OWN_ADAM:
        adam = trainer.model_wrapped.optimizer.optimizer
        assert type(adam).__name__ == "DeepSpeedCPUAdam", type(adam)
    trainer.save_model(str(out / "model"))
    if trainer.accelerator.is_main_process:
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        (out / "log.json").write_text(json.dumps(steps), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    del trainer
    forget()


def refused(trainer: Any, checkpoint: str, pattern: str) -> None:
    """No step is taken, and the message says why."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except RunError as error:
        assert re.search(pattern, str(error)), error
    else:
        raise AssertionError(f"{checkpoint} was not refused")
    assert trainer.state.global_step == 0
    forget()


def forget() -> None:
    """Let the next run begin as the first one did."""
    rolling.generate_ids = generate_ids
    torch.set_default_dtype(torch.float32)
    reference.COLUMNS["logps"] = "float32"
    gc.collect()
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state()
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]


def main() -> None:
    for run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["runs"]:
        try:
            train(run)
        except Exception as error:
            raise RuntimeError(f"{run['way']}: {run['out']}") from error
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
