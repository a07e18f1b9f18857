"""One stage: tokens + model + settings -> a trained model in its folder."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain.errors import RecipeError
from posttrain.generation import LocalSettings, engine_settings
from posttrain.models import Adapter, load_model, load_tokenizer, merge_adapter, save_model
from posttrain.pipeline.check import dpo_loss, hub_options, is_verifier
from posttrain.pipeline.counting import say
from posttrain.pipeline.hardware import Hardware, set_accelerate_accumulation, split_batch
from posttrain.recipe import Recipe, stage_name
from posttrain.trainers.base import PostTrainer, PostTrainingArguments
from posttrain.trainers.best import FOLDER as BEST
from posttrain.trainers.best import Best
from posttrain.trainers.checkpoints import last_checkpoint
from posttrain.trainers.dpo import DPOConfig, DPOTrainer
from posttrain.trainers.reward import RewardConfig, RewardTrainer
from posttrain.trainers.rewards import RewardModel
from posttrain.trainers.rlvr import RLVRConfig, RLVRTrainer
from posttrain.trainers.rlvr_config import Methods
from posttrain.trainers.saving import move
from posttrain.trainers.scorer import load_reward_model
from posttrain.trainers.sft import PretrainTrainer, SFTConfig, SFTTrainer
from posttrain.trainers.value import POLICY, RANDOM, load_value_model

TRAINERS: dict[str, tuple[type[PostTrainer], type[PostTrainingArguments]]] = {
    "pretrain": (PretrainTrainer, SFTConfig),
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "reward": (RewardTrainer, RewardConfig),
    "rlvr": (RLVRTrainer, RLVRConfig),
}

# recipe keys handed to the trainer's config under the same name
SHARED = (
    "learning_rate", "lr_scheduler_type", "num_train_epochs", "weight_decay", "adam_beta1",
    "adam_beta2", "adam_epsilon", "max_grad_norm", "optim", "logging_steps", "save_steps",
    "save_total_limit", "max_length", "truncation", "packing", "max_tokens_per_device",
    "max_skipped_steps",
)  # fmt: skip
OWN: dict[str, tuple[str, ...]] = {
    "sft": ("loss_reduction", "z_loss"),
    "reward": ("loss",),
    "rlvr": (
        "num_generations", "num_mini_batches", "num_ppo_epochs", "max_prompt_length",
        "max_completion_length", "temperature", "top_p", "beta", "kl_in", "kl_estimator",
        "kl_controller", "advantage", "value_model", "vf_coef", "cliprange_value", "loss",
        "loss_reduction", "reward_scale", "missing_eos_reward", "reward_weights", "reward_workers",
        "resample_rounds", "rollouts_ahead", "save_rollouts", "reward_seconds", "max_wrong_gold",
    ),
}  # fmt: skip


def half(recipe: Recipe) -> bool:
    """Whether training computes in bfloat16."""
    return recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and torch.cuda.is_available())


def arguments(
    recipe: Recipe, stage: Any, folder: Path, hardware: Hardware
) -> PostTrainingArguments:
    """The trainer's config of a stage."""
    micro, steps = split_batch(stage, hardware.world)
    set_accelerate_accumulation(steps)
    seed = stage.seed if stage.seed is not None else recipe.seed
    values: dict[str, Any] = {name: getattr(stage, name) for name in SHARED}
    values |= {name: getattr(stage, name) for name in OWN.get(stage.kind, ())}
    if stage.kind == "dpo":
        values["loss"] = dpo_loss(stage)
        if stage.ref_model_name_or_path:
            options = hub_options(recipe, stage.ref_model_name_or_path)
            values["ref_model_init_kwargs"] = options
    if stage.kind == "rlvr":
        values["generation"] = dict(stage.generation)
        engine = engine_settings(stage.generation)
        if isinstance(engine, LocalSettings):
            values["generation_batch_size"] = engine.batch_size
    if stage.max_steps is not None:
        values["max_steps"] = stage.max_steps
    # transformers reads a float below 1 as a share of the steps
    given = stage.warmup_steps is not None
    values["warmup_steps"] = stage.warmup_steps if given else stage.warmup_ratio
    values |= recomputation(int(stage.gradient_checkpointing))
    return TRAINERS[stage.kind][1](
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=steps,
        per_device_eval_batch_size=micro,
        seed=seed,
        data_seed=seed,
        compile_layers="inductor" if stage.torch_compile else None,
        bf16=half(recipe),
        fp16=recipe.dtype == "float16",
        deepspeed=hardware.deepspeed,
        save_strategy="steps",
        logging_strategy="steps",
        report_to=recipe.report_to,
        run_name=f"{recipe.name}-{stage_name(stage)}",
        disable_tqdm=True,
        log_level_replica="error",
        ddp_find_unused_parameters=False,  # every loss here reaches every trained weight
        push_to_hub=False,
        **values,
    )


def recomputation(every: int) -> dict[str, Any]:
    """The trainer's settings that recompute the activations of every n-th layer; 0: of none.

    Raises:
        RecipeError: transformers is too old for a choice of layers.
    """
    if not every:
        return {}
    if "activation_checkpointing" in PostTrainingArguments.__dataclass_fields__:
        chosen = {"every_n_layers": every} if every > 1 else None
        return {"activation_checkpointing": True, "activation_checkpointing_kwargs": chosen}
    if every > 1:
        raise RecipeError(
            f"gradient_checkpointing: {every} (every {every}th layer) needs a newer transformers, "
            "one with `activation_checkpointing`; `true` recomputes every layer with this one"
        )
    return {"gradient_checkpointing": True}


def adapter_of(stage: Any) -> Adapter | None:
    """The stage's LoRA settings."""
    if not stage.use_peft:
        return None
    return Adapter(
        r=stage.lora_r,
        alpha=stage.lora_alpha,
        dropout=stage.lora_dropout,
        target_modules=stage.lora_target_modules,
        modules_to_save=stage.lora_modules_to_save,
        rslora=stage.use_rslora,
        dora=stage.use_dora,
        load_in_4bit=stage.load_in_4bit,
        quant_type=stage.bnb_4bit_quant_type,
        nested_quant=stage.use_bnb_nested_quant,
    )


def beside(recipe: Recipe, stage: Any, start: str, dtype: torch.dtype) -> dict[str, Any]:
    """The models that a stage's trainer takes beside the one it trains.

    Args:
        start: where the policy comes from.
        dtype: of its weights.
    """
    if stage.kind == "dpo" and stage.ref_model_name_or_path:
        return {"ref_model": stage.ref_model_name_or_path}
    models: dict[str, Any] = {}
    if stage.kind == "rlvr" and (value := Methods.of(stage).value_model):
        path = start if value in (POLICY, RANDOM) else value
        models["value_model"] = load_value_model(
            value, start, adapter_of(stage), dtype, **hub_options(recipe, path)
        )
    if stage.kind == "rlvr" and stage.reward_funcs:
        functions: list[Any] = []
        for name in stage.reward_funcs:
            if not is_verifier(name):
                name = RewardModel(load_reward_model(name, **hub_options(recipe, name)))
            functions.append(name)
        models["reward_funcs"] = functions
    return models


def train(
    recipe: Recipe,
    stage: Any,
    start: str,
    rows: Any,
    folder: Path,
    hardware: Hardware,
    callbacks: Sequence[TrainerCallback] = (),
    held_out: Any = None,
) -> dict[str, Any]:
    """Train one stage from the model at `start`; its model ends in `<folder>/model`.

    Args:
        stage: names other models by their paths, as `plan.resolved` gives it.

    Returns:
        `steps` and the last `metrics` logged.

    Raises:
        KeyboardInterrupt: told to stop; the step that was in progress is saved.
    """
    fresh_state()
    args = arguments(recipe, stage, folder, hardware)
    set_seed(args.seed)
    adapter, trainer_class = adapter_of(stage), TRAINERS[stage.kind][0]
    dtype = torch.bfloat16 if adapter and half(recipe) else torch.float32
    options, words = hub_options(recipe, start), recipe.tokenizer_name_or_path or start
    model = load_model(start, head=trainer_class.head, dtype=dtype, adapter=adapter, **options)
    tokenizer = load_tokenizer(
        words, chat_template=recipe.chat_template, **hub_options(recipe, words)
    )
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        **beside(recipe, stage, start, dtype),
    )
    trainer.remove_callback(PrinterCallback)
    if held_out is not None and stage.eval_steps is not None:
        trainer.add_callback(HeldOut(trainer, stage.eval_steps))
    best = stage.kind == "rlvr" and stage.load_best_model_at_end
    if stage.kind == "rlvr":
        trainer.add_callback(Best(trainer, best, stage.early_stopping_patience))
    warn = say if PartialState().is_main_process else None
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, warn))
    if held_out is not None:
        trainer.evaluate()
    metrics = last_metrics(trainer.state.log_history)
    result = {"steps": trainer.state.global_step, "metrics": metrics}
    export(trainer, start, folder, adapter, options, folder / BEST if best else None)
    del trainer, model
    fresh_state()
    return result


class HeldOut(TrainerCallback):
    """Evaluates on the held-out rows every so many steps.

    At the start of the next step rather than at the end of this one: transformers evaluates before
    it saves, and an evaluation that fails must not cost the checkpoint. A checkpoint is therefore
    from before the evaluation of its step, and a run that goes on from it evaluates first.
    """

    def __init__(self, trainer: PostTrainer, every: int) -> None:
        self.trainer, self.every, self.latest = trainer, every, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        rows = (r["step"] for r in state.log_history if {"eval_loss", "eval_reward"} & r.keys())
        self.latest = max(rows, default=0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > self.latest and state.global_step % self.every == 0:
            self.latest = state.global_step
            self.trainer.evaluate()


def last_metrics(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of every number that was logged."""
    merged: dict[str, Any] = {}
    for row in history:
        merged |= row
    own = ("step", "epoch")
    return {k: v for k, v in merged.items() if k not in own and not k.startswith("train_")}


def export(
    trainer: PostTrainer,
    start: str,
    folder: Path,
    adapter: Adapter | None,
    options: dict[str, Any],
    best: Path | None = None,
) -> None:
    """Write `<folder>/model`, whole or not at all; adapters are folded in, and kept beside it.

    Args:
        best: saved weights to take in place of the trainer's.
    """
    aside, state = folder / "model.tmp", PartialState()
    saved = folder / "adapter" if adapter else aside
    if best is None:
        trainer.save_model(str(saved))
    elif state.is_main_process:
        shutil.copytree(best, saved, dirs_exist_ok=True)
    state.wait_for_everyone()
    if state.is_main_process:
        (aside / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nobody needs it
        if adapter:
            unset_hf_deepspeed_config()
            head, tokenizer = trainer.head, trainer.processing_class
            path = str(folder / "adapter")
            merged = merge_adapter(path, start, head, tokenizer=tokenizer, **options)
            save_model(merged, tokenizer, aside)
        move(aside, folder / "model")  # one from just before the run was killed may lie there
    state.wait_for_everyone()


def fresh_state() -> None:
    """Forget the accelerator of the stage before: its DeepSpeed settings are not this one's."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state()
