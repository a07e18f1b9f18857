"""Whether the gradient of a recipe's own stages depends on how their batches are split.

The first rows of a stage make one optimizer step in every way there is: 1 x B, 2 x B/2 and B x 1
(micro-batch x accumulation), packed or not, by count or under a token budget. Every way goes
through the stage's own trainer and settings, in float32 and without dropout, from the model that
the recipe starts from; the step itself is not taken. RLVR samples its rows, so it is left out.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_utils import SaveStrategy

from posttrain.errors import RecipeError
from posttrain.models import load_model, load_tokenizer
from posttrain.packing import pack_rows, row_lengths
from posttrain.pipeline.base import make_base, smoke_base, smoke_opener, smoke_recipe
from posttrain.pipeline.check import check, hub_options, read_recipe
from posttrain.pipeline.data import build_stage, stage_rows
from posttrain.pipeline.hardware import Hardware
from posttrain.pipeline.stage import TRAINERS, adapter_of, arguments, fresh_state
from posttrain.recipe import Pretrain, Recipe, Stage, stage_name
from posttrain.sources import Opened, open_source

ROWS = 8
TOLERANCE = 1e-5
SMALL = 1e-4  # parameters whose gradient is below this share of the whole are measured against it

Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Gap:
    """How far one way of splitting is from the first.

    Attributes:
        stage, split: which way, as `sft` and `2x4 packed`.
        loss: as it is logged.
        loss_gap: relative difference to the first way's loss.
        gradient_gap: largest relative difference (2-norm) of a parameter's gradient.
        parameter: the one that has it.
    """

    stage: str
    split: str
    loss: float
    loss_gap: float
    gradient_gap: float
    parameter: str


@dataclass(frozen=True)
class Split:
    """Micro-batch and accumulation, packed or not, and tokens per forward pass, if limited."""

    micro: int
    steps: int
    packing: bool = False
    max_tokens: int | None = None

    def __str__(self) -> str:
        text = f"{self.micro}x{self.steps}" + (" packed" if self.packing else "")
        return text + (f", {self.max_tokens} tokens" if self.max_tokens else "")


class Kept(TrainerCallback):
    """Keeps the gradient that the optimizer is about to use."""

    gradients: Gradients

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        named = given["model"].named_parameters()
        self.gradients = {n: p.grad.detach().clone() for n, p in named if p.grad is not None}


def batch_invariance(
    recipe_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
    rows: int = ROWS,
) -> list[Gap]:
    """The gaps of every stage that has rows, each way of splitting against the first.

    Args:
        smoke: a tiny random model and stand-in rows, without network.
        rows: how many make the batch.

    Raises:
        RecipeError: no stage can be checked.
    """
    recipe = read_recipe(recipe_path, overrides)
    recipe = smoke_recipe(recipe) if smoke else recipe
    check(recipe, recipe_path, smoke=smoke)
    stages = [stage for stage in recipe.stages if stage.kind != "rlvr"]
    if not stages:
        raise RecipeError("batch invariance: the recipe has rlvr stages only, which sample rows")
    gaps: list[Gap] = []
    with tempfile.TemporaryDirectory(prefix="posttrain-doctor-") as folder:
        start = start_model(recipe, Path(folder), smoke)
        for i, stage in enumerate(stages):
            few = few_rows(stage, rows)
            gaps += stage_gaps(recipe, few, start, Path(folder) / str(i), smoke, rows)
    return gaps


def start_model(recipe: Recipe, folder: Path, smoke: bool) -> str:
    """The model that the recipe starts from, or one that is made in its place."""
    made = folder / "base"
    if isinstance(recipe.stages[0], Pretrain):
        make_base(recipe, made, lambda stage: smoke_opener(stage.row_kind))
    elif smoke:
        smoke_base(recipe, made)
    return str(made) if made.exists() else str(recipe.model_name_or_path)


def few_rows(stage: Stage, rows: int) -> Stage:
    """The stage on a few rows of each of its first sources, read as they come; no dropout."""
    sources = stage.datasets[:rows]
    each = -(-rows // len(sources))
    plain: dict[str, Any] = {"fraction": None, "repeat": None, "weight": None, "filters": ()}
    changes: dict[str, Any] = {
        "datasets": tuple(replace(s, num_samples=each, **plain) for s in sources),
        **dict.fromkeys(("token_budget", "mixing", "eval_fraction", "max_steps", "warmup_steps")),
        "filters": (),
        "bad_rows": "drop",
        "num_train_epochs": 1,
        "lora_dropout": 0.0,
        "load_in_4bit": False,
        "max_grad_norm": 0.0,  # the gradient itself
        "optim": "sgd",  # holds nothing, and is never used
        "logging_steps": 1,
    }
    return replace(stage, **changes)


def stage_gaps(
    recipe: Recipe, stage: Stage, start: str, folder: Path, smoke: bool, number: int
) -> list[Gap]:
    """Build a stage's rows, run all ways, compare them with the first."""
    words = recipe.tokenizer_name_or_path or start
    options = hub_options(recipe, words)
    tokenizer = load_tokenizer(words, chat_template=recipe.chat_template, **options)

    def opener(source: Any, seed: int) -> Opened:
        opened = smoke_opener(stage.row_kind)(source, seed) if smoke else open_source(source, seed)
        return Opened(list(itertools.islice(opened.rows, 4 * number)), None, None)

    build_stage(recipe, stage, tokenizer, folder / "data", opener)
    data = stage_rows(folder / "data")
    data = data.select(range(min(number, len(data))))
    fresh_state()
    set_seed(recipe.seed)
    adapter, head = adapter_of(stage), TRAINERS[stage.kind][0].head
    model = load_model(start, head=head, adapter=adapter, **hub_options(recipe, start))
    gaps: list[Gap] = []
    first: tuple[float, Gradients] | None = None
    stage = replace(stage, max_length=pack_length(data))
    for split in splits(data, stage.max_length):
        loss, gradients = one_step(recipe, stage, split, model, data, folder / "run", tokenizer)
        first = first or (loss, gradients)
        gradient_gap, name = largest_gap(gradients, first[1])
        loss_gap = abs(loss - first[0]) / max(abs(first[0]), 1e-12)
        gaps.append(Gap(stage_name(stage), str(split), loss, loss_gap, gradient_gap, name))
    return gaps


def pack_length(rows: Any) -> int:
    """A `max_length` under which these rows, already cut, make several packs."""
    lengths, sides = row_lengths(rows), 2 if "chosen_ids" in rows.column_names else 1
    most = max(int(lengths.max()), -(-int(lengths.sum()) // 3))
    return -(-most // sides)


def splits(rows: Any, max_length: int) -> Iterator[Split]:
    """Every way to run these rows as one batch."""
    lengths = row_lengths(rows)
    budget = max(int(lengths.max()), -(-int(lengths.sum()) // 3))
    for packing in (False, True):
        number = len(pack_rows(rows, max_length)) if packing else len(rows)
        for steps in sorted({1, *(n for n in (2, number) if number % n == 0)}):
            yield Split(number // steps, steps, packing)
        yield Split(number, 1, packing, budget)


def one_step(
    recipe: Recipe, stage: Stage, split: Split, model: Any, rows: Any, folder: Path, tokenizer: Any
) -> tuple[float, Gradients]:
    """The loss that one way logs, and its gradient."""
    cut = replace(
        stage,
        batch_size=split.micro * split.steps,
        per_device_train_batch_size=split.micro,
        gradient_accumulation_steps=split.steps,
        packing=split.packing,
        max_tokens_per_device=split.max_tokens,
    )
    quiet = replace(recipe, dtype="float32", report_to="none")
    args = arguments(quiet, cut, folder, Hardware(1, None, ""))
    args.save_strategy, args.learning_rate = SaveStrategy.NO, 0.0
    kept = Kept()
    trainer = TRAINERS[stage.kind][0](
        model=model, args=args, train_dataset=rows, processing_class=tokenizer, callbacks=[kept]
    )
    trainer.remove_callback(PrinterCallback)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    trainer.train()
    fresh_state()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry), (
        kept.gradients
    )


def largest_gap(gradients: Gradients, first: Gradients) -> tuple[float, str]:
    """The largest relative difference over parameters, and whose it is."""
    whole = math.sqrt(sum(float(g.double().square().sum()) for g in first.values()))
    gaps = {
        name: float((gradients[name] - g).norm()) / max(float(g.norm()), SMALL * whole, 1e-30)
        for name, g in first.items()
    }
    name = max(gaps, key=lambda n: math.inf if math.isnan(gaps[n]) else gaps[n])
    return gaps[name], name


def as_json(gaps: Sequence[Gap], tolerance: float) -> dict[str, Any]:
    """The gaps and the verdict."""
    found = [number for gap in gaps for number in (gap.gradient_gap, gap.loss_gap)]
    worst = max(found, key=lambda number: math.inf if math.isnan(number) else number)
    rows = [asdict(gap) for gap in gaps]
    return {"ok": worst <= tolerance, "worst": worst, "tolerance": tolerance, "splits": rows}
