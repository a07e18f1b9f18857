"""What a recipe may say: one frozen dataclass per block, every key documented where it is declared.

The blocks of `datasets:` stand in source.py, those of `stages:` in stages.py, all others here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.recipe.declare import key
from posttrain.recipe.stages import Stage


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
