"""What a recipe may say: one frozen dataclass per block, every key documented where it is declared.

`key(default, help, ...)` keeps the help text, the bounds, the choices and the peers' spellings
beside the default, so that the loader, the error messages, `recipes/schema.json` and
`docs/recipes.md` all read the same declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar


def key(
    default: Any = MISSING,
    help: str = "",
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[Any, ...] | None = None,
    aliases: tuple[str, ...] = (),
) -> Any:
    """Declare a recipe key: its default, meaning, bounds, choices and the peers' names for it."""
    metadata = {
        "help": help,
        "above": above,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
        "aliases": aliases,
    }
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of `datasets:`: where rows come from and how many of them to take."""

    path: str = key(
        help="Hub id, folder, file (.jsonl, .jsonl.gz, .json, .csv, .parquet, .arrow), or"
        " `generated:NAME`."
    )
    name: str | None = key(None, "Configuration of a hub data set.", aliases=("subset", "config"))
    split: str = key("train", "Split to read.")
    revision: str | None = key(None, "Hub revision (commit) to pin.")
    data_files: str | tuple[str, ...] | None = key(
        None, "Files to read inside the hub id or folder."
    )
    format: str | Mapping[str, Any] | None = key(
        None,
        "How rows are written: a name, or {name: ..., option: ...}; default: as the columns say.",
        aliases=("type", "formatting"),
    )
    columns: Mapping[str, str] = key(
        {}, "Our field -> their column, e.g. {prompt: question, ground_truth: answer}."
    )
    streaming: bool = key(
        False, "Read a hub data set as it downloads, without a copy in the hub's own cache."
    )
    license: str | None = key(
        None, "Licence, for the lock file; default: what the data set says of itself."
    )
    filters: tuple[Any, ...] = key((), "Filters of this source only, before the stage's.")
    source: str | None = key(
        None, "Name of this source in metrics and reports; default: from `path`."
    )
    verifier: str | None = key(None, "Verifier of every row (rlvr only); overrides the rows' own.")
    fraction: float | None = key(
        None, "Share of the rows to take, drawn at random.", above=0, at_most=1
    )
    num_samples: int | None = key(
        None, "Rows to take, drawn at random; more than there are repeats.", at_least=1
    )
    repeat: float | None = key(None, "Passes over the rows.", at_least=1)
    weight: float | None = key(
        None, "Share of the stage's `token_budget`, relative to the other weights.", above=0
    )
    seed: int | None = key(None, "Seed of a `generated:` source; default: the recipe's seed.")

    EXCLUSIVE: ClassVar[tuple[str, ...]] = ("fraction", "num_samples", "repeat", "weight")


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
        "Share of every source's rows that is held out, drawn by the seed; its loss is measured.",
        above=0,
        at_most=0.5,
        aliases=("val_size", "val_set_size"),
    )
    eval_steps: int | None = key(
        None,
        "Measure the held-out loss every so many steps; default: once, at the end.",
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
    optim: str = key("adamw_torch", "Optimizer, by its transformers name.")
    gradient_checkpointing: bool = key(False, "Recompute activations in the backward pass.")
    seed: int | None = key(None, "Seed of this stage; default: the recipe's.")
    logging_steps: int = key(1, "Log every so many steps.", at_least=1)
    save_steps: int = key(500, "Checkpoint every so many steps.", at_least=1)
    save_total_limit: int = key(2, "Checkpoints kept.", at_least=1)
    use_peft: bool = key(
        False, "Train LoRA adapters instead of all weights.", aliases=("use_lora",)
    )
    lora_r: int = key(16, "LoRA rank.", at_least=1, aliases=("lora_rank",))
    lora_alpha: int = key(32, "LoRA alpha.", at_least=1)
    lora_dropout: float = key(0.0, "LoRA dropout.", at_least=0, at_most=1)
    lora_target_modules: str | tuple[str, ...] = key(
        "all-linear", "Modules that get adapters.", aliases=("lora_target", "lora_modules")
    )
    load_in_4bit: bool = key(
        False, "QLoRA: hold the frozen weights in 4 bits (bitsandbytes).", aliases=("use_qlora",)
    )
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


@dataclass(frozen=True, kw_only=True)
class DPO(Stage):
    """Direct preference optimisation; the reference is the model the stage starts from."""

    kind = "dpo"
    row_kind = "preference"

    loss: Mapping[str, Any] = key(
        {"name": "dpo"}, "Preference loss and its options: {name: dpo, beta: 0.1}."
    )
    beta: float | None = key(
        None, "Short for `loss.beta`.", above=0, aliases=("dpo_beta", "pref_beta", "rl_beta")
    )


@dataclass(frozen=True, kw_only=True)
class Reward(Stage):
    """Reward model: a scalar head trained on preference pairs (Bradley-Terry)."""

    kind = "reward"
    row_kind = "preference"


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
    num_mini_batches: int = key(1, "Optimizer steps that share one rollout.", at_least=1)
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
    beta: float = key(
        0.0, "Weight of the KL term towards the stage's start, in the loss.", at_least=0
    )
    advantage: Mapping[str, Any] = key(
        {"name": "group"}, "How rewards become advantages, and its options."
    )
    loss: Mapping[str, Any] = key({"name": "grpo"}, "Policy loss and its options.")
    loss_reduction: str = key(
        "token_mean",
        "Over the global batch of completions.",
        choices=("token_mean", "sequence_mean"),
    )
    reward_scale: float = key(
        1.0,
        "A verifier's score of 1 is worth this much.",
        above=0,
        aliases=("verification_reward",),
    )
    missing_eos_reward: float | None = key(
        None,
        "Replaces the score of a completion that was cut off before its EOS.",
        aliases=("non_stop_penalty_value",),
    )
    remap_verifier: Mapping[str, str] = key(
        {}, "Verifier that the rows name -> verifier to use, e.g. {ifeval: ifeval_old}."
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """One evaluation task."""

    name: str = key(help="Name of the task (`posttrain eval --help` lists them).")
    path: str | None = key(None, "Local file or hub id that replaces the task's own rows.")
    columns: Mapping[str, str] = key({}, "Our field -> their column, for `path`.")
    split: str | None = key(None, "Split of `path`.")
    num_samples: int | None = key(
        None, "Rows to evaluate, drawn at random; default: all.", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class Eval:
    """What is measured after the base model and after every stage."""

    tasks: tuple[Task, ...] = key((), "Tasks: names, or {name: ..., path: ...}.")
    suite: str | None = key(None, "A named list of tasks.")
    batch_size: int = key(32, "Prompts generated at a time.", at_least=1)
    max_new_tokens: int = key(512, "Longest answer in tokens.", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole stack: the model it starts from, its stages in order, and what is measured."""

    name: str = key(help="Name of the run; its folder is runs/<name>/.")
    model_name_or_path: str | None = key(
        None,
        "Hub id or folder of the base model; absent when the first stage is `pretrain`.",
        aliases=("base_model",),
    )
    model_revision: str | None = key(
        None, "Hub revision of the base model.", aliases=("revision_of_model",)
    )
    tokenizer_name_or_path: str | None = key(None, "Tokenizer, when it is not the model's own.")
    chat_template: str | None = key(
        None,
        "Name in posttrain/templates/, or a .jinja file; default: the tokenizer's own.",
        aliases=("chat_template_name", "chat_template_path"),
    )
    seed: int = key(42, "Seed of everything that is not given one of its own.")
    dtype: str = key(
        "auto",
        "Weights are trained in this type; auto: bfloat16 on an accelerator, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        aliases=("torch_dtype",),
    )
    trust_remote_code: bool = key(False, "Run code that comes with a hub model. Off unless asked.")
    report_to: str = key("none", "Tracker, by its transformers name.")
    decontaminate: bool | Mapping[str, Any] = key(
        True,
        "Training rows that hold an evaluation prompt are dropped and counted: {mode: ngram, n: 8,"
        " threshold: 0.5, against: [files]}; `false` turns it off.",
    )
    stages: tuple[Stage, ...] = key(help="Stages in order, each a mapping {kind: {...}}.")
    eval: Eval | None = key(  # noqa: RUF009
        None, "Tasks to evaluate: a list of names, or a block."
    )


STAGES: dict[str, type[Stage]] = {cls.kind: cls for cls in (Pretrain, SFT, DPO, Reward, RLVR)}


def stage_name(stage: Stage) -> str:
    """The name a stage goes by: its own, or its kind."""
    return stage.name or stage.kind
