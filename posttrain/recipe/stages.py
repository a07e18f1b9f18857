"""What a stage of a recipe may say: what all have in common, then each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from posttrain.recipe.declare import key
from posttrain.recipe.source import Source


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every training stage may say."""

    kind: ClassVar[str] = ""
    row_kind: ClassVar[str] = ""

    name: str | None = key(
        None, "Name of the stage; default: its kind. Needed when a kind occurs twice."
    )
    start: str | None = key(
        None,
        "Earlier stage (or `base`) whose model this one starts from; default: the last policy"
        " before.",
    )
    datasets: tuple[Source, ...] = key(
        help="Where the rows come from.",
        aliases=("dataset_mixer_list", "dataset_mixture", "dataset_mixer"),
    )
    token_budget: int | None = key(None, "Tokens that sources with a `weight` share.", at_least=1)
    filters: tuple[Any, ...] = key(
        (), "Filters applied to every row: names, or {name: ..., option: ...}."
    )
    mixing: Mapping[str, Any] | None = key(
        None,
        "How many rows each source gives, instead of amounts at the sources: {name: proportional,"
        " cap: 3000} or {name: temperature, temperature: 2}, with `num_samples` rows in all.",
    )
    eval_fraction: float | None = key(
        None,
        "Share of every source's rows that is held out, drawn by the seed; its loss is measured, in"
        " rlvr the reward of greedy answers.",
        above=0,
        at_most=0.5,
        aliases=("val_size", "val_set_size"),
    )
    eval_steps: int | None = key(
        None,
        "Measure the held-out loss or reward every so many steps; default: once, at the end.",
        at_least=1,
    )
    bad_rows: str = key(
        "error",
        "Rows that cannot be read stop the run, or are dropped and counted.",
        choices=("error", "drop"),
    )
    max_length: int = key(
        2048,
        "Longest sequence in tokens.",
        at_least=2,
        aliases=("max_seq_length", "sequence_len", "cutoff_len"),
    )
    truncation: str = key(
        "truncate", "What to do with longer rows.", choices=("truncate", "drop", "error")
    )
    packing: bool = key(
        False,
        "Pack the whole data set, best-fit, into sequences of `max_length`; `batch_size` then"
        " counts packs.",
        aliases=("sample_packing",),
    )
    max_tokens_per_device: int | None = key(
        None,
        "Tokens per process and forward pass, instead of `per_device_train_batch_size`: the rows of"
        " a step are packed best-fit under it.",
        at_least=1,
        aliases=("max_tokens_per_gpu", "max_token_len_per_gpu"),
    )
    batch_size: int = key(
        32,
        "Sequences (dpo, reward: pairs) per optimizer step, over all processes.",
        at_least=1,
        aliases=("train_batch_size", "global_batch_size"),
    )
    per_device_train_batch_size: int | None = key(
        None,
        "Sequences per process and forward pass; default: the most that divides, up to 8.",
        at_least=1,
        aliases=("micro_batch_size",),
    )
    gradient_accumulation_steps: int | None = key(
        None, "Derived from `batch_size`; if given it must agree.", at_least=1
    )
    learning_rate: float = key(1e-5, "Peak learning rate.", above=0, aliases=("lr",))
    lr_scheduler_type: str = key("linear", "Schedule after warm-up.", aliases=("lr_scheduler",))
    warmup_ratio: float = key(0.0, "Share of the steps spent warming up.", at_least=0, at_most=1)
    warmup_steps: int | None = key(None, "Warm-up steps, instead of `warmup_ratio`.", at_least=0)
    num_train_epochs: float = key(1.0, "Passes over the data.", above=0, aliases=("num_epochs",))
    max_steps: int | None = key(None, "Optimizer steps, instead of epochs.", at_least=1)
    weight_decay: float = key(0.0, "AdamW weight decay.", at_least=0)
    adam_beta1: float = key(0.9, "AdamW beta1.", at_least=0, at_most=1)
    adam_beta2: float = key(0.999, "AdamW beta2.", at_least=0, at_most=1)
    adam_epsilon: float = key(1e-8, "AdamW epsilon.", above=0)
    max_grad_norm: float = key(
        1.0, "Clip the global gradient norm here; 0 turns clipping off.", at_least=0
    )
    max_skipped_steps: int = key(
        3,
        "Steps whose loss or gradient is not finite are left out; stop after so many in a row.",
        at_least=1,
    )
    optim: str = key("adamw_torch", "Optimizer, by its transformers name.")
    gradient_checkpointing: bool | int = key(
        False,
        "Recompute activations in the backward pass: of every layer, or of every n-th.",
        at_least=0,
    )
    torch_compile: bool = key(False, "Compile the layers of the model with torch.compile.")
    seed: int | None = key(None, "Seed of this stage; default: the recipe's.")
    logging_steps: int = key(1, "Log every so many steps.", at_least=1)
    save_steps: int = key(500, "Checkpoint every so many steps.", at_least=1)
    save_total_limit: int = key(2, "Checkpoints kept.", at_least=1)
    use_peft: bool = key(False, "Train LoRA adapters, not all weights.", aliases=("use_lora",))
    lora_r: int = key(16, "LoRA rank.", at_least=1, aliases=("lora_rank",))
    lora_alpha: int = key(32, "LoRA alpha.", at_least=1)
    lora_dropout: float = key(0.0, "LoRA dropout.", at_least=0, at_most=1)
    lora_target_modules: str | tuple[str, ...] = key(
        "all-linear", "Modules that get adapters.", aliases=("lora_target", "lora_modules")
    )
    lora_modules_to_save: tuple[str, ...] = key((), "Modules trained whole beside the adapters.")
    use_rslora: bool = key(False, "rsLoRA: adapters count alpha / sqrt(r), not alpha / r.")
    use_dora: bool = key(False, "DoRA: train the magnitude of each weight column as well.")
    load_in_4bit: bool = key(False, "QLoRA: frozen weights in 4 bits.", aliases=("use_qlora",))
    bnb_4bit_quant_type: str = key("nf4", "4-bit data type.", choices=("nf4", "fp4"))
    use_bnb_nested_quant: bool = key(False, "Quantise the quantisation constants too.")


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Build a model and its tokenizer from nothing and pretrain them on plain text."""

    kind = "pretrain"
    row_kind = "text"

    model: Mapping[str, Any] = key(
        help="`model_type` (llama, mistral, ...) and the fields of its transformers configuration."
    )
    tokenizer: Mapping[str, Any] = key(
        {}, "`vocab_size` of the byte-level BPE tokenizer trained on the text."
    )


@dataclass(frozen=True, kw_only=True)
class SFT(Stage):
    """Supervised fine-tuning on the assistant turns of conversations."""

    kind = "sft"
    row_kind = "conversation"

    last_turn_only: bool = key(
        False,
        "Train on the last assistant turn of a conversation only.",
        aliases=("mask_history", "only_unmask_final"),
    )
    train_on_prompt: bool = key(
        False, "Train on every token, the prompt's too.", aliases=("train_on_inputs",)
    )
    loss_reduction: str = key(
        "token_mean",
        "Over the global batch: mean over trained tokens; sum over tokens / sequences; mean of"
        " sequence means.",
        choices=("token_mean", "sum", "sequence_mean"),
        aliases=("reduce_loss",),
    )
    z_loss: float | None = key(
        None,
        "c of the z-loss c * lse^2 per trained token, lse the logarithm of the softmax's"
        " denominator, e.g. 1e-4; default: the model's own, which nearly all have not.",
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class DPO(Stage):
    """Direct preference optimisation and its relatives, against a reference."""

    kind = "dpo"
    row_kind = "preference"

    loss: Mapping[str, Any] = key(
        {"name": "dpo"}, "Preference loss and its options: {name: dpo, beta: 0.1}."
    )
    beta: float | None = key(
        None, "Short for `loss.beta`.", above=0, aliases=("dpo_beta", "pref_beta", "rl_beta")
    )
    ref_model_name_or_path: str | None = key(
        None,
        "Reference of the loss: `base`, an earlier stage, a folder or a hub id; default: the model"
        " that the stage starts from.",
        aliases=("ref_model",),
    )


@dataclass(frozen=True, kw_only=True)
class Reward(Stage):
    """Reward model: a scalar head trained on preference pairs (Bradley-Terry)."""

    kind = "reward"
    row_kind = "preference"

    loss: Mapping[str, Any] = key({"name": "bradley_terry"}, "Loss of a pair and its options.")


@dataclass(frozen=True, kw_only=True)
class RLVR(Stage):
    """Reinforcement learning on problems whose answers a verifier can check."""

    kind = "rlvr"
    row_kind = "problem"

    batch_size: int = key(
        64,
        "Completions per rollout (prompts x num_generations), over all processes.",
        at_least=1,
        aliases=("train_batch_size", "global_batch_size"),
    )
    num_mini_batches: int = key(
        1, "Parts of a rollout that are trained on one after another.", at_least=1
    )
    num_ppo_epochs: int = key(
        1,
        "Passes over a rollout; with `num_mini_batches` it makes their product of optimizer steps.",
        at_least=1,
        aliases=("ppo_epochs",),
    )
    num_generations: int = key(
        8,
        "Completions per prompt.",
        at_least=1,
        aliases=("num_samples_per_prompt_rollout", "group_size"),
    )
    max_prompt_length: int = key(
        1024,
        "Prompts with more tokens are dropped and counted.",
        at_least=1,
        aliases=("max_prompt_token_length",),
    )
    max_completion_length: int = key(
        1024,
        "New tokens per completion.",
        at_least=1,
        aliases=("response_length", "max_new_tokens"),
    )
    temperature: float = key(
        1.0, "Sampling temperature; the log-probs are taken at it too.", above=0
    )
    top_p: float = key(1.0, "Nucleus sampling; 1 is off.", above=0, at_most=1)
    generation: Mapping[str, Any] = key(
        {"name": "local"},
        "Who completes the prompts, and its options: {name: local, batch_size: 64} in process,"
        " {name: vllm, device_memory: 0.4} a server.",
    )
    beta: float = key(
        0.0,
        "Weight of the KL term towards the stage's start.",
        at_least=0,
        aliases=("kl_coef",),
    )
    kl_in: str = key(
        "loss",
        "Where the KL term is: in the loss, or taken off the reward of every token.",
        choices=("loss", "reward"),
    )
    kl_estimator: str | None = key(
        None,
        "Estimator of the KL; default: k1 in the reward, `loss.kl` in the loss.",
        choices=("k1", "k2", "k3"),
    )
    kl_controller: Mapping[str, Any] = key(
        {"name": "fixed"},
        "What moves the weight of a KL in the reward: {name: adaptive, target: 6, horizon: 10000}.",
    )
    advantage: Mapping[str, Any] = key(
        {"name": "group"},
        "How rewards become advantages, and its options: {name: gae, gamma: 1.0, lam: 0.95}.",
    )
    value_model: str | None = key(
        None,
        "What the value model of `advantage: gae` starts from: `policy` (the stage's start, with a"
        " fresh head; the default), `random`, an earlier reward stage, a folder or a hub id.",
        aliases=("value_model_name_or_path",),
    )
    vf_coef: float = key(0.1, "Weight of the value loss.", above=0)
    cliprange_value: float | None = key(
        0.2, "Clip of the values about those at the rollout; null is off.", above=0
    )
    loss: Mapping[str, Any] = key({"name": "grpo"}, "Policy loss and its options.")
    loss_reduction: str | None = key(
        None,
        "Over the global batch of completions: mean over tokens; mean of sequence means; sum over"
        " tokens / sequences; that / max_completion_length. Default: the loss's own.",
        choices=("token_mean", "sequence_mean", "sum", "max_length"),
    )
    reward_funcs: tuple[str, ...] = key(
        (),
        "What rewards a completion: earlier reward stages, folders or hub ids of reward models,"
        " verifiers by name, and `verifier` for the one that each row names; default: that alone.",
    )
    reward_weights: tuple[float, ...] = key(
        (), "Factor of each of `reward_funcs` in their sum; default: 1."
    )
    reward_scale: float = key(
        1.0,
        "The sum is multiplied by this: what a verifier's score of 1 is worth.",
        above=0,
        aliases=("verification_reward",),
    )
    missing_eos_reward: float | None = key(
        None,
        "Replaces the score of a completion that was cut off before its EOS.",
        aliases=("non_stop_penalty_value",),
    )
    resample_rounds: int = key(
        0,
        "Draw other prompts in the place of groups whose rewards are all equal, at most so many"
        " times per rollout (DAPO's dynamic sampling); 0 is off.",
        at_least=0,
    )
    rollouts_ahead: int = key(
        0,
        "Ask for so many rollouts before they are needed, so that a server completes them while"
        " others are trained on; their tokens come from weights that are as many rollouts old.",
        at_least=0,
        aliases=("async_steps",),
    )
    early_stopping_patience: int | None = key(
        None,
        "Stop after so many held-out evaluations in a row without a better reward.",
        at_least=1,
    )
    load_best_model_at_end: bool = key(
        False, "The stage's model is the one with the best held-out reward, not the last one."
    )
    save_rollouts: bool = key(
        True, "Write every completion with its reward to `rollouts/` in the stage's folder."
    )
    reward_workers: int = key(
        2, "Processes that verify while other completions are still written; 0: none.", at_least=0
    )
    reward_seconds: float = key(
        30.0, "Seconds that the verdict on a completion may take; then it scores 0.", above=0
    )
    max_wrong_gold: float | None = key(
        0.1,
        "Stop before the first step if verifiers grade the gold answers of more than this share of"
        " the rows wrongly; null: do not look.",
        at_least=0,
        at_most=1,
    )
    remap_verifier: Mapping[str, str] = key(
        {}, "Verifier that the rows name -> verifier to use, e.g. {ifeval: ifeval_old}."
    )


STAGES: dict[str, type[Stage]] = {cls.kind: cls for cls in (Pretrain, SFT, DPO, Reward, RLVR)}


def stage_name(stage: Stage) -> str:
    """The name a stage goes by: its own, or its kind."""
    return stage.name or stage.kind
