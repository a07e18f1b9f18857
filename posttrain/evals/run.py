"""Runs tasks on a model: greedy and batched, with n and standard error."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.errors import DataError, ModelError, VerifierError
from posttrain.evals.pairs import choose
from posttrain.evals.result import Result, TaskRows, summarise
from posttrain.evals.spread import spread
from posttrain.evals.tasks import get_task
from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row
from posttrain.generation.local import LocalGenerate, Sampling
from posttrain.models import load_config, load_model, load_tokenizer
from posttrain.recipe import Source, Task
from posttrain.sources import open_source, source_name
from posttrain.sources.files import rename
from posttrain.sources.places import data_files
from posttrain.tokens import check_same_words
from posttrain.trainers.scorer import Scorer, has_scalar_head, is_reward_model
from posttrain.verifiers import get_verifier

Progress = Callable[[str], None]


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
        raw = [
            name | rename(row, source.columns)
            for part, name in each_file(source, task.kind)
            for row in opener(part, 0).rows
        ]
    rows, left_out = TaskRows(), Counter[str]()
    place = f"task {task.name}: {f'{spec.path}: ' if spec.path else ''}"
    for number, row in enumerate(raw, 1):
        try:
            rows.append(checked(task.read(row)))
        except (DataError, VerifierError) as error:
            if not task.leaves_out:
                raise DataError(f"{place}row {number}: {error}") from error
            left_out[str(error).split(", got ")[0]] += 1
    if not rows:
        why = "".join(f"; {number} rows: {reason}" for reason, number in left_out.items())
        raise DataError(f"{place}no rows{why}")
    if spec.num_samples and spec.num_samples < len(rows):
        some = random.Random(f"{task.name}/{spec.num_samples}").sample(rows, spec.num_samples)
        rows = TaskRows(some)
    rows.left_out = left_out
    return rows


def each_file(source: Source, kind: str) -> list[tuple[Source, Row]]:
    """A folder of pairs file by file, each of which is a source of its own; else the whole."""
    folder = Path(source.path).expanduser()
    if kind == "problem" or not folder.is_dir() or any(folder.glob("*.arrow")):
        return [(source, {})]
    parts = [replace(source, path=str(file)) for file in data_files(source, folder)]
    return [(part, {"source": source_name(part)}) for part in parts]


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
    reference: PreTrainedModel | None = None,
    length_normalise: bool = False,
    progress: Progress = lambda line: None,
) -> dict[str, Result]:
    """Score a loaded model on tasks. A reward model is scored on pairs and best-of-n only.

    Args:
        reference: makes a policy choose by DPO's implicit reward instead of its log-probs.
        length_normalise: a policy chooses by its log-probs per token.
    """
    results: dict[str, Result] = {}
    scorer = None
    for task, rows in tasks:
        if has_scalar_head(model) and task.kind == "problem":
            continue
        if task.kind == "problem":
            result = answer(model, tokenizer, task, rows, batch_size, max_new_tokens, progress)
        else:
            options = {"reference": reference, "length_normalise": length_normalise}
            scorer = scorer or Scorer.of(model, tokenizer, **options)
            result = choose(scorer, task, rows)
        name = unused(task.name, results)
        results[name] = result
        lost = sum(getattr(rows, "left_out", {}).values())
        count = f"n={result.n}" + (f", {lost} rows left out" if lost else "")
        progress(f"{name}: {result.score:.3f} ± {result.stderr:.3f} ({count})")
    return results


def unused(name: str, taken: Collection[str]) -> str:
    """The name of a task, numbered where one of that name was scored already (other rows)."""
    numbered = (f"{name}-{i}" for i in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


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


def load_reference(path: str, words: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The policy that a policy with these tokens is measured against.

    Raises:
        ModelError: it is a reward model, or its tokens are others.
    """
    model, tokenizer = load(path)
    try:
        if has_scalar_head(model):
            raise ModelError("it is a reward model; give the policy that DPO started from")
        check_same_words(words, tokenizer)
    except ModelError as error:
        raise ModelError(f"reference {path!r}: {error}") from error
    return model


def evaluate_path(
    model_path: str,
    task_names: Sequence[str],
    *,
    num_samples: int | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 32,
    reference: str | None = None,
    length_normalise: bool = False,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Score a checkpoint by its path: `{task: {score, n, stderr, version, ...}}`.

    Args:
        task_names: names, or `name=path` for rows of your own.
        reference: path of the policy that DPO's implicit reward is measured against.
        others: see `evaluate`.
    """
    named = [(name, path or None) for name, _, path in (n.partition("=") for n in task_names)]
    specs = [Task(name=name, path=path, num_samples=num_samples) for name, path in named]
    tasks = [(task := get_task(spec.name), task_rows(task, spec)) for spec in specs]
    model, tokenizer = load(model_path)
    if (reference or length_normalise) and has_scalar_head(model):
        raise ModelError(
            f"{model_path} is a reward model and picks by its scores: leave out `reference` and"
            " `length_normalise`, which are for policies"
        )
    results = evaluate(
        model,
        tokenizer,
        tasks,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        reference=load_reference(reference, tokenizer) if reference else None,
        length_normalise=length_normalise,
        progress=progress,
    )
    return {name: result.summary() for name, result in results.items()}
