"""The model a stack starts from: one that exists, a new one, or a tiny stand-in (`--smoke`)."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from posttrain.errors import DataError
from posttrain.evals.tasks import get_task
from posttrain.formats import Row, to_row
from posttrain.models import check_checkpoint, load_config, load_model, load_tokenizer, save_model
from posttrain.pipeline.check import eval_tasks, is_verifier, named_models
from posttrain.pipeline.folder import RunFolder, read_json, write_json
from posttrain.recipe import Eval, Pretrain, Recipe, Source, Stage, Task, stage_name, to_dict
from posttrain.scratch import new_model, new_tokenizer
from posttrain.sources import PREFIX, Opened, open_source, stand_in
from posttrain.sources.files import digest, exists, rename
from posttrain.sources.tiny import text
from posttrain.trainers.rewards import OWN

OpenerOf = Callable[[Stage], Callable[[Source, int], Opened]]
MADE_FROM = "made_from.json"
TOKENIZER_TEXTS = 5000
ARCHITECTURES = (  # a name before those that it holds
    "mixtral", "mistral", "qwen3", "qwen2", "gemma2", "gemma", "olmo2", "olmo", "phi3", "llama",
)  # fmt: skip
SMOKE_ROWS = 8
SMOKE_WIDTH = 64  # 4-bit weights come in blocks of 64
SMOKE_TOKENS = 4096  # the tiny tokenizer needs several tokens for a word
REWARD = "reward"  # folder, inside the base's, of the reward model in the place of others'
STAND_IN = f"base/{REWARD}"  # that model as one of `reward_funcs`; no stage has such a name


def tokenizer_texts(recipe: Recipe, opener_of: OpenerOf) -> list[str]:
    """What a new tokenizer is trained on: the pretraining text, and what all later stages say."""
    texts: list[str] = []
    for stage in recipe.stages:
        most = TOKENIZER_TEXTS if isinstance(stage, Pretrain) else TOKENIZER_TEXTS // 5
        for source in stage.datasets:
            for raw in itertools.islice(opener_of(stage)(source, recipe.seed).rows, most):
                texts += row_texts(stage, source, raw)
    return texts


def row_texts(stage: Stage, source: Source, raw: Row) -> list[str]:
    """What one row says; nothing if it cannot be read (the stage's own data will tell)."""
    try:
        row = to_row(stage.row_kind, rename(raw, source.columns))
    except DataError:
        return []
    if "text" in row:
        return [row["text"]]
    turns = (row.get(name, ()) for name in ("messages", "prompt", "chosen", "rejected"))
    return [message["content"] for part in turns for message in part]


def pretrain_tokenizer(recipe: Recipe, opener_of: OpenerOf = lambda _: open_source) -> Any:
    """The tokenizer of a recipe whose first stage pretrains."""
    stage = recipe.stages[0]
    assert isinstance(stage, Pretrain)
    size = int(stage.tokenizer.get("vocab_size", 1024))
    return new_tokenizer(tokenizer_texts(recipe, opener_of), size, recipe.chat_template)


def make_base(recipe: Recipe, folder: Path, opener_of: OpenerOf) -> None:
    """Write the untrained model of a `pretrain` stage and its tokenizer."""
    stage = recipe.stages[0]
    assert isinstance(stage, Pretrain)
    new_model(stage.model, pretrain_tokenizer(recipe, opener_of), folder, recipe.seed)


def ensure_base(recipe: Recipe, run: RunFolder, smoke: bool, opener_of: OpenerOf) -> None:
    """Make the base model, unless it was made from the same settings before."""
    first, folder, aside = recipe.stages[0], run.path / "base", run.path / "base.tmp"
    made = [smoke, recipe.model_name_or_path, recipe.chat_template, recipe.seed]
    if isinstance(first, Pretrain):
        settings = to_dict(first)["pretrain"]
        made += [settings[name] for name in ("model", "tokenizer", "datasets")]
    rewarded = smoke and any(STAND_IN in named_models(stage) for stage in recipe.stages)
    made += [REWARD] if rewarded else []
    key = {"key": digest(json.dumps(made, sort_keys=True, default=str).encode())}
    if folder.exists():
        if (folder / MADE_FROM).is_file() and read_json(folder / MADE_FROM) == key:
            return
        run.set_aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if isinstance(first, Pretrain):
        make_base(recipe, aside, opener_of)
    else:
        smoke_base(recipe, aside)
    if rewarded:
        model: Any = load_model(str(aside), head="scalar")
        save_model(model, load_tokenizer(str(aside)), aside / REWARD)
    write_json(aside / MADE_FROM, key)
    os.replace(aside, folder)


# --- smoke ---------------------------------------------------------------------------------------


def architecture(recipe: Recipe) -> str:
    """Architecture of the base model: from its folder, or from its name when it is not here."""
    path = recipe.model_name_or_path or ""
    if Path(path).is_dir():
        return str(load_config(path).model_type)
    plain = path.lower().replace("-", "").replace("tulu", "llama")
    return next((name for name in ARCHITECTURES if name in plain), "llama")


def smoke_base(recipe: Recipe, folder: Path) -> None:
    """A random model of the recipe's architecture, and a tokenizer with the recipe's template."""
    path, template = recipe.model_name_or_path or "", recipe.chat_template
    if Path(path).is_dir():
        check_checkpoint(path)
        template = template or own_template(path)
    texts = [row["text"] for row in itertools.islice(text(0), 500)]
    spec = {
        "model_type": architecture(recipe),
        "hidden_size": SMOKE_WIDTH,
        "intermediate_size": 2 * SMOKE_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2 * SMOKE_TOKENS,
    }
    new_model(spec, new_tokenizer(texts, 400, template or "tulu"), folder, recipe.seed)


def own_template(path: str) -> str | None:
    """Name to give `load_template`, if the checkpoint brings a template file of its own."""
    file = Path(path) / "chat_template.jinja"
    return str(file) if file.is_file() else None


def smoke_recipe(recipe: Recipe) -> Recipe:
    """The same recipe, two steps a stage on a few rows, short enough for a laptop."""
    made = isinstance(recipe.stages[0], Pretrain)
    names = [stage_name(stage) for stage in recipe.stages]
    stages = tuple(smoke_models(smoke_stage(s, made), names, made) for s in recipe.stages)
    tasks = tuple(replace(task, num_samples=4) for task in eval_tasks(recipe.eval))
    spec = recipe.eval or Eval()
    return replace(
        recipe,
        name=f"{recipe.name}-smoke",
        tokenizer_name_or_path=None,
        dtype="float32",
        report_to="none",
        decontaminate=smoke_decontaminate(recipe.decontaminate),
        stages=stages,
        eval=replace(spec, tasks=tasks, suite=None, max_new_tokens=8),
    )


def smoke_decontaminate(spec: bool | Mapping[str, Any]) -> bool | dict[str, Any]:
    """The stand-ins of rows and of evaluation prompts are alike: matches are only reported."""
    if spec is False:
        return False
    return {**(spec if isinstance(spec, Mapping) else {}), "action": "report"}


def smoke_source(source: Source) -> Source:
    """A few rows of a source; the stand-ins for one that is not here name their own verifiers."""
    few = replace(source, num_samples=SMOKE_ROWS, fraction=None, repeat=None, weight=None)
    if on_this_machine(source):
        return few
    # the stand-ins are in plain shapes, and are ours
    return replace(few, verifier=None, format="chat", filters=())


def smoke_stage(stage: Stage, made: bool) -> Stage:
    """One stage of a smoke run; its methods, masks and adapters stay as they are.

    Args:
        made: the recipe makes its own model and tokenizer, which its lengths fit.
    """
    here = all(on_this_machine(source) for source in stage.datasets)
    changes: dict[str, Any] = {
        "datasets": tuple(smoke_source(source) for source in stage.datasets),
        "token_budget": None,
        "mixing": None,
        "filters": stage.filters if here else (),
        "bad_rows": "drop",
        "truncation": "truncate",
        "max_length": min(stage.max_length, SMOKE_TOKENS) if made else SMOKE_TOKENS,
        "batch_size": 8,
        "per_device_train_batch_size": None,
        "gradient_accumulation_steps": None,
        "max_tokens_per_device": stage.max_tokens_per_device and 16 * SMOKE_TOKENS,
        "max_steps": 2,
        "warmup_steps": None,
        "logging_steps": 1,
    }
    if stage.kind == "rlvr":
        generations = min(4, stage.num_generations)  # type: ignore[attr-defined]
        batches = stage.num_mini_batches  # type: ignore[attr-defined]
        prompt = stage.max_prompt_length  # type: ignore[attr-defined]
        changes |= {
            "num_generations": generations,
            "batch_size": generations * batches * 4,
            "max_prompt_length": min(prompt, SMOKE_TOKENS) if made else SMOKE_TOKENS,
            "max_completion_length": 8,
        }
        if any(not on_this_machine(s) for s in stage.datasets):
            changes["remap_verifier"] = {}  # the stand-ins name our verifiers
    if isinstance(stage, Pretrain):
        small = {
            "hidden_size": SMOKE_WIDTH,
            "intermediate_size": 2 * SMOKE_WIDTH,
            "num_hidden_layers": 2,
        }
        changes["model"] = {**stage.model, **{k: v for k, v in small.items() if k in stage.model}}
    return replace(stage, **changes)


def smoke_models(stage: Any, names: list[str], made: bool) -> Stage:
    """The stage with tiny models in the place of those that are no stages of the recipe."""
    if stage.kind == "dpo" and stage.ref_model_name_or_path not in (None, *names):
        return replace(stage, ref_model_name_or_path=None if made else "base")
    if stage.kind == "rlvr":
        models = {name: STAND_IN for name in named_models(stage) if name not in names}
        functions = [models.get(name, name) for name in stage.reward_funcs]
        if any(not on_this_machine(s) for s in stage.datasets):  # the stand-ins name our verifiers
            functions = [OWN if is_verifier(name) else name for name in functions]
        value = models.get(stage.value_model or "", stage.value_model)
        return replace(stage, reward_funcs=tuple(functions), value_model=value)
    return cast(Stage, stage)


def on_this_machine(source: Source) -> bool:
    """Whether a source can be read without network."""
    return source.path.startswith(PREFIX) or exists(source.path)


def smoke_opener(kind: str) -> Any:
    """Opens local sources as they are and puts generated rows in the place of all others."""

    def opener(source: Source, seed: int) -> Opened:
        if not on_this_machine(source):
            return under_columns(stand_in(kind, SMOKE_ROWS, seed), source)
        opened = open_source(source, seed)
        return Opened(list(itertools.islice(opened.rows, 20 * SMOKE_ROWS)), None, None)

    return opener


def under_columns(rows: list[Row], source: Source) -> Opened:
    """Rows in the place of a source that is not here, under the names of its columns too."""
    named = source.columns.items()
    rows = [row | {theirs: row.get(ours, "") for ours, theirs in named} for row in rows]
    return Opened(rows, None, None)


def smoke_task_rows(task: Task) -> list[Any]:
    """Stand-ins for the rows of a task that are not on this machine."""
    number, kind = task.num_samples or 4, get_task(task.name).kind
    if kind == "preference":
        return stand_in("preference", number, 0)
    if kind == "answers":
        pairs = stand_in("preference", number, 0)
        sides = ("chosen", "rejected")
        return [{**p, "answers": [p[s] for s in sides], "correct": 0} for p in pairs]
    verifier = task.name if task.name in ("gsm8k", "ifeval") else "gsm8k"
    rows = stand_in("problem", 200, 0)
    return [row for row in rows if row["verifier"] == verifier][:number]
