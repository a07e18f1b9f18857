"""Runs tasks on a model: greedy and batched, with n and standard error."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.errors import DataError, VerifierError
from posttrain.evals.spread import spread
from posttrain.evals.tasks import get_task
from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row, to_row
from posttrain.generation.local import LocalGenerate, Sampling
from posttrain.losses.base import segment_sum
from posttrain.models import load_config, load_model, load_tokenizer
from posttrain.packing import Collator, forward_inputs
from posttrain.recipe import Source, Task
from posttrain.sources import open_source
from posttrain.sources.files import rename
from posttrain.tokens import Tokenizer, tokenize
from posttrain.verifiers import get_verifier

Progress = Callable[[str], None]
CONFIG_FOR_REWARD = "ForSequenceClassification"


@dataclass(frozen=True)
class Result:
    """Score of one task with the rows behind it.

    Attributes:
        score: mean over rows, 0 to 1; stderr: its standard error; n: rows.
        transcripts: per row prompt, completion, score, reason, ground_truth.
    """

    score: float
    n: int
    stderr: float
    version: str
    transcripts: list[Row]

    def summary(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return {"score": self.score, "n": self.n, "stderr": self.stderr, "version": self.version}


def summarise(scores: Sequence[float], version: str, transcripts: list[Row]) -> Result:
    """Mean and standard error (sample standard deviation / sqrt(n))."""
    n = len(scores)
    mean = sum(scores) / n
    variance = sum((s - mean) ** 2 for s in scores) / (n - 1) if n > 1 else 0.0
    return Result(mean, n, (variance / n) ** 0.5, version, transcripts)


def task_rows(
    task: EvalTask, spec: Task, opener: Callable[[Source, int], Any] = open_source
) -> list[Row]:
    """Rows of a task: its own, or those that `path` puts in their place.

    Raises:
        DataError: rows that cannot be read as the task's kind.
    """
    source = task.source
    if spec.path:
        source = Source(path=spec.path, split=spec.split or "train", columns=spec.columns)
    elif source and spec.split:
        source = replace(source, split=spec.split)
    if source is None:
        raw = task.rows()
    else:
        raw = [rename(row, source.columns) for row in opener(source, 0).rows]
    rows, place = [], f"task {task.name}: {f'{spec.path}: ' if spec.path else ''}"
    for number, row in enumerate(raw, 1):
        try:
            rows.append(checked(to_row(task.kind, task.problem(row))))
        except (DataError, VerifierError) as error:
            raise DataError(f"{place}row {number}: {error}") from error
    if not rows:
        raise DataError(f"task {task.name}: no rows")
    if spec.num_samples and spec.num_samples < len(rows):
        rows = random.Random(f"{task.name}/{spec.num_samples}").sample(rows, spec.num_samples)
    return rows


def checked(row: Row) -> Row:
    """The row, if its verifier can read its ground truth: known before a model is trained."""
    if "verifier" in row:
        get_verifier(row["verifier"]).check_ground_truth(row["ground_truth"])
    return row


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[tuple[EvalTask, list[Row]]],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 512,
    progress: Progress = lambda line: None,
) -> dict[str, Result]:
    """Score a loaded model on tasks. A reward model is scored on pair tasks only."""
    results = {}
    for task, rows in tasks:
        if has_scalar_head(model) and task.kind != "preference":
            continue
        if task.kind == "preference":
            results[task.name] = compare(model, tokenizer, task, rows, batch_size)
        else:
            results[task.name] = answer(
                model, tokenizer, task, rows, batch_size, max_new_tokens, progress
            )
        result = results[task.name]
        progress(f"{task.name}: {result.score:.3f} ± {result.stderr:.3f} (n={result.n})")
    return results


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: EvalTask,
    rows: list[Row],
    batch_size: int,
    max_new_tokens: int,
    progress: Progress,
) -> Result:
    """Generate greedily and grade every answer."""
    generate = LocalGenerate(model, tokenizer, Sampling(max_new_tokens, 0.0), batch_size)

    def graded(part: Sequence[Row]) -> list[Row]:
        texts = generate([row["prompt"] for row in part])
        verdicts = [task.grade(text, row) for text, row in zip(texts, part, strict=True)]
        return [
            {
                "prompt": r["prompt"],
                "completion": t,
                "score": v.score,
                "reason": v.reason,
                "ground_truth": r["ground_truth"],
            }
            for r, t, v in zip(part, texts, verdicts, strict=True)
        ]

    transcripts = spread(rows, graded)
    return summarise([row["score"] for row in transcripts], task.version, transcripts)


def pair_values(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], scalar: bool
) -> torch.Tensor:
    """`[2 pairs]` scores, or summed log-probs, of both answers of every pair in a packed batch."""
    inputs = forward_inputs(batch)
    if scalar:
        return model(**inputs, use_cache=False).logits[0, batch["last"], 0].float()
    logits = model(**inputs, logits_to_keep=batch["keep"], use_cache=False).logits[0].float()
    logps = -torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="none")
    return segment_sum(logps, batch["segment"], len(batch["tokens"]))


@torch.no_grad()
def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: EvalTask,
    rows: list[Row],
    batch_size: int,
) -> Result:
    """Share of pairs whose chosen answer has the higher summed log-prob, or the higher score."""
    scalar = has_scalar_head(model)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30)
    tokenized = tokenize(rows, "preference", Tokenizer(tokenizer, limit))
    data = tokenized.rows
    if lost := len(rows) - len(data):  # scores of fewer rows would pass for scores of the task
        reasons = "; ".join(sorted({why for d in tokenized.dropped.values() for why in d}))
        raise DataError(f"task {task.name}: {lost} of {len(rows)} pairs cannot be used: {reasons}")
    collate = Collator({})
    model.eval()

    def both_sides(mine: Sequence[int]) -> list[list[float]]:
        values: list[list[float]] = []
        for start in range(0, len(mine), batch_size):
            part = [{**data[i], "index": i} for i in mine[start : start + batch_size]]
            batch = {name: tensor.to(model.device) for name, tensor in collate(part).items()}
            values += pair_values(model, batch, scalar).view(-1, 2).tolist()
        return values

    values = spread(range(len(data)), both_sides)
    what = "score" if scalar else "log-prob"
    transcripts = [
        {
            "prompt": row["prompt"],
            "completion": row["chosen"][-1]["content"],
            "score": float(chosen > rejected),
            "reason": f"{what} of the chosen answer {chosen:.2f}, of the rejected {rejected:.2f}",
            "ground_truth": f"rejected: {row['rejected'][-1]['content']}",
        }
        for row, (chosen, rejected) in zip(rows, values, strict=True)
    ]
    return summarise([float(c > r) for c, r in values], task.version, transcripts)


def has_scalar_head(model: PreTrainedModel) -> bool:
    """Whether a loaded model scores rather than writes."""
    return not hasattr(model, "lm_head") and hasattr(model, "score")


def is_reward_model(config: Any) -> bool:
    """Whether a configuration is that of a checkpoint with a scalar head."""
    return CONFIG_FOR_REWARD in "".join(getattr(config, "architectures", None) or [])


def load(
    path: str, chat_template: str | None = None, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint as it is scored: with its own head, in bfloat16 on this process's GPU."""
    head = "scalar" if is_reward_model(load_config(path, **options)) else "lm"
    tokenizer = load_tokenizer(path, chat_template=chat_template, **options)
    model: Any = load_model(path, head=head, **options)
    if torch.cuda.is_available():
        model = model.to(PartialState().device, torch.bfloat16)
    return model, tokenizer


def evaluate_path(
    model_path: str,
    task_names: Sequence[str],
    *,
    num_samples: int | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 32,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Score a checkpoint by its path: `{task: {score, n, stderr, version}}`."""
    specs = [Task(name=name, num_samples=num_samples) for name in task_names]
    tasks = [(task := get_task(spec.name), task_rows(task, spec)) for spec in specs]
    model, tokenizer = load(model_path)
    results = evaluate(
        model,
        tokenizer,
        tasks,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    return {name: result.summary() for name, result in results.items()}
