"""Contradictions between keys that are each right by themselves."""

from __future__ import annotations

import re
from typing import Any

from posttrain.recipe.blocks import Block
from posttrain.recipe.nodes import join
from posttrain.recipe.source import Source
from posttrain.recipe.stages import DPO, RLVR, SFT, Pretrain, Reward
from posttrain.recipe.values import BAD

_FOLDER = re.compile(r"\w(?:[\w.+ -]{0,198}[\w+-])?")
RESERVED = ("policy", "random")  # what a value model may start from beside models with names
_STAGE = re.compile(r"\w[\w+-]{0,99}")


def check_recipe(recipe: Block) -> None:
    """Record every contradiction of a recipe whose values have been read."""
    name = recipe.get("name")
    if name is not BAD and not _FOLDER.fullmatch(name):
        recipe.fault(
            "name",
            f"got {name!r}; it names the folder runs/<name>/, so it must start with a letter or"
            " digit and hold only letters, digits, spaces and - _ . +",
        )
    stages = recipe.children.get("stages", [])
    if "stages" in recipe.given and recipe.get("stages") == ():
        recipe.fault("stages", "is empty; give at least one stage, as `- sft: {datasets: [...]}`")
    _check_base(recipe, stages)
    _check_names(stages)
    for i, stage in enumerate(stages):
        _check_start(recipe, stages, i)
        _check_named(recipe, stages, i)
        check_stage(stage)


def _check_base(recipe: Block, stages: list[Block]) -> None:
    pretrained = [stage for stage in stages if stage.cls is Pretrain]
    for stage in stages[1:]:
        if stage.cls is Pretrain:
            stage.faults.at(
                stage.path, stage.node, "`pretrain` builds a model from nothing; move it first"
            )
    given = "model_name_or_path" in recipe.given
    if pretrained and given:
        recipe.fault(
            "model_name_or_path",
            "contradicts the `pretrain` stage, which builds the model; remove one of them",
        )
    elif stages and not pretrained and not given:
        recipe.fault(
            "model_name_or_path",
            "is missing; give the hub id or folder of the base model, or make the first stage"
            " `pretrain`",
        )


def name_of(stage: Block) -> str | None:
    """The name a stage goes by, or `None` when it could not be read."""
    name = stage.get("name")
    return None if name is BAD else name or stage.kind


def _check_names(stages: list[Block]) -> None:
    seen: dict[str, str] = {}
    for stage in stages:
        name = name_of(stage)
        if name is None:
            continue
        if name == "base" or not _STAGE.fullmatch(name):
            stage.fault(
                "name",
                f"got {name!r}; a stage's name must be letters, digits, - _ or +,"
                " and not `base`, which is the model before the first stage",
            )
        if name in seen:
            stage.fault(
                "name", f"`{name}` already names {seen[name]}; set `name:` to tell them apart"
            )
        seen.setdefault(name, stage.path)


def _check_start(recipe: Block, stages: list[Block], i: int) -> None:
    stage, start = stages[i], stages[i].get("start")
    if start is BAD or start is None:
        return
    names = [name_of(other) for other in stages]
    earlier = [name for name, s in zip(names[:i], stages, strict=False) if s.cls is not Reward]
    base = ["base"] if "model_name_or_path" in recipe.given else []
    allowed = ", ".join(filter(None, dict.fromkeys([*base, *earlier]))) or "none; remove it"
    if stage.cls is Pretrain:
        stage.fault("start", "a `pretrain` stage starts from nothing; remove `start`")
    elif start == "base" and not base:
        stage.fault(
            "start", f"there is no base model without `model_name_or_path`; may be: {allowed}"
        )
    elif start in names[i:]:
        place = "this stage itself" if start == names[i] else "a later stage"
        stage.fault("start", f"`{start}` is {place}; may be: {allowed}")
    elif start in names[:i] and start not in earlier:
        stage.fault("start", f"`{start}` is a reward model, not a policy; may be: {allowed}")
    elif start not in (*base, *earlier):
        stage.fault("start", f"there is no stage `{start}`; may be: {allowed}")


def _check_named(recipe: Block, stages: list[Block], i: int) -> None:
    """Models that a stage names beside its start: stages must be earlier ones of the right kind."""
    stage = stages[i]
    if stage.kind == "dpo":
        name = _known(stage.get("ref_model_name_or_path"))
        fault = _misplaced(name, stages, i, Reward, "is a reward model, which has no log-probs")
        if name == "base" and "model_name_or_path" not in recipe.given:
            fault = "there is no base model without `model_name_or_path`"
        if fault:
            stage.fault("ref_model_name_or_path", fault)
    elif stage.kind == "rlvr":
        functions = _known(stage.get("reward_funcs")) or ()
        for j, name in enumerate(functions):
            policy = (Pretrain, SFT, DPO, RLVR)
            why = "is a policy; name a reward stage"
            fault = _misplaced(name, stages, i, policy, why)
            if fault or name == "base":
                stage.fault(f"reward_funcs[{j}]", fault or f"`base` {why}")
        weights = _known(stage.get("reward_weights")) or ()
        if weights and len(weights) != len(functions):
            stage.fault(
                "reward_weights",
                f"got {len(weights)} for {len(functions)} of `reward_funcs`; give one for each",
            )
        _check_value_model(stages, i)


def _check_value_model(stages: list[Block], i: int) -> None:
    """A value model of a stage is that of an earlier reward stage; `policy` stands for policies."""
    name = _known(stages[i].get("value_model"))
    why = "is a policy; name a reward stage, or `policy` for the model that this stage starts from"
    fault = _misplaced(name, stages, i, (Pretrain, SFT, DPO, RLVR), why)
    if name not in RESERVED and (fault or name == "base"):
        stages[i].fault("value_model", fault or f"`base` {why}")


def _misplaced(name: str | None, stages: list[Block], i: int, wrong: Any, why: str) -> str:
    """What is wrong with naming a stage in stage i; nothing if it is none, or fits."""
    found = next((j for j, stage in enumerate(stages) if name and name_of(stage) == name), None)
    if found is None:
        return ""
    if found >= i:
        return f"`{name}` is {'this stage itself' if found == i else 'a later stage; move it up'}"
    return f"`{name}` {why}" if issubclass(stages[found].cls, wrong) else ""


def check_stage(stage: Block) -> None:
    """Record the contradictions inside one stage."""
    both = "contradicts `{}`; remove one of them".format
    if _positive(stage.get("warmup_ratio")) and "warmup_steps" in stage.given:
        stage.fault("warmup_steps", both("warmup_ratio"))
    if {"max_steps", "num_train_epochs"} <= stage.given.keys():
        stage.fault("max_steps", both("num_train_epochs"))
    if stage.get("load_in_4bit") is True and stage.get("use_peft") is False:
        stage.fault(
            "load_in_4bit", "4-bit weights cannot be trained themselves; set `use_peft: true`"
        )
    _check_batch(stage)
    _check_packing(stage)
    _check_sources(stage)
    for i, item in enumerate(_known(stage.get("filters")) or ()):
        if not isinstance(item, str) and not (isinstance(item, dict) and "name" in item):
            stage.fault(f"filters[{i}]", f"got {item!r}; must be a name or {{name: ..., ...}}")
    if stage.kind == "rlvr":
        _check_multiple(stage, ("num_generations", "num_mini_batches"))
    if stage.kind == "dpo":
        _check_beta(stage)
    if stage.cls is Pretrain and "model_type" not in (_known(stage.get("model")) or {"model_type"}):
        stage.fault("model", "needs `model_type`, as `model: {model_type: llama, ...}`")


def _check_batch(stage: Block) -> None:
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    _check_multiple(stage, tuple(name for name in names if name in stage.given))


def _check_packing(stage: Block) -> None:
    """Packs are made before training, and a token budget must hold the longest sequence."""
    if stage.kind == "rlvr" and stage.get("packing") is True:
        stage.fault(
            "packing",
            "completions have no length before they are sampled; remove it, and set"
            " `max_tokens_per_device`, which packs them step by step",
        )
    budget = _known(stage.get("max_tokens_per_device"))
    if budget is None:
        return
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if name in stage.given:
            stage.fault(name, "contradicts `max_tokens_per_device`; remove one of them")
    rl = stage.kind == "rlvr"
    names = ("max_prompt_length", "max_completion_length") if rl else ("max_length",)
    lengths = [stage.get(name) for name in names]
    if BAD not in lengths and budget < sum(lengths):
        stage.fault(
            "max_tokens_per_device",
            f"got {budget}, and a sequence may have {' + '.join(names)} = {sum(lengths)} tokens;"
            f" give at least {sum(lengths)}",
        )


def _check_multiple(stage: Block, names: tuple[str, ...]) -> None:
    """`batch_size` must be a multiple of the product of `names`."""
    factors = [stage.get(name) for name in names]
    size = stage.get("batch_size")
    if not factors or size is BAD or BAD in factors:
        return
    unit = 1
    for factor in factors:
        unit *= factor
    if size % unit:
        below = size // unit * unit
        legal = " or ".join(str(n) for n in (below, below + unit) if n)
        product = " x ".join(f"{name} ({f})" for name, f in zip(names, factors, strict=True))
        got = f"got {size}" if "batch_size" in stage.given else f"is {size} by default"
        stage.fault("batch_size", f"{got}, not a multiple of {product}; nearest: {legal}")


def _check_held_out(stage: Block) -> None:
    if "eval_steps" in stage.given and _known(stage.get("eval_fraction")) is None:
        stage.fault("eval_steps", "needs rows to evaluate on; set `eval_fraction`")
    for name in ("early_stopping_patience", "load_best_model_at_end"):
        if stage.kind == "rlvr" and _known(stage.get(name)) and "eval_steps" not in stage.given:
            stage.fault(name, "needs evaluations to compare; set `eval_fraction` and `eval_steps`")


def _check_mixing(stage: Block, sources: list[Block]) -> None:
    if _known(stage.get("mixing")) is None:
        return
    for source in sources:
        for name in Source.EXCLUSIVE:
            if name in source.given and not _generated(source):
                source.fault(name, f"contradicts `mixing` of {stage.path}; remove one of them")


def _generated(source: Block) -> bool:
    """Whether `num_samples` says how many rows there are, not how many to take."""
    return str(_known(source.get("path"))).startswith("generated:")


def _check_sources(stage: Block) -> None:
    sources = stage.children.get("datasets", [])
    _check_held_out(stage)
    _check_mixing(stage, sources)
    if "datasets" in stage.given and stage.get("datasets") == ():
        stage.fault("datasets", "is empty; give at least one source, as `- {path: ...}`")
    for source in sources:
        amounts = [name for name in Source.EXCLUSIVE if name in source.given]
        if len(amounts) > 1:
            source.fault(amounts[1], f"contradicts `{amounts[0]}`; keep one of them")
        if "verifier" in source.given and stage.kind != "rlvr":
            source.fault("verifier", "only rlvr stages have verifiers; remove it")
    weighted = [source for source in sources if "weight" in source.given]
    budget = "token_budget" in stage.given
    if weighted and not budget:
        weighted[0].fault(
            "weight", f"is a share of a token budget; set `token_budget` in {stage.path}"
        )
    if budget and sources and not weighted:
        stage.fault("token_budget", "is shared by weights, and no source has a `weight`; give each")
    if weighted:
        for source in sources:
            if source not in weighted:
                source.faults.at(
                    join(source.path, "weight"),
                    source.node,
                    "is missing, while other sources have one; give every source a weight or none",
                )


def _check_beta(stage: Block) -> None:
    short, loss = stage.get("beta"), _known(stage.get("loss")) or {}
    if _positive(short) and "beta" in loss and loss["beta"] != short:
        stage.fault("beta", f"got {short:g}, but `loss.beta` is {loss['beta']}; remove one of them")


def _known(value: Any) -> Any:
    return None if value is BAD else value


def _positive(value: Any) -> bool:
    return isinstance(value, float) and value > 0
