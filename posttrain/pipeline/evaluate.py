"""Evaluation of a stage's model inside a run: scores, transcripts, and nothing done twice."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain.evals.run import evaluate, task_rows
from posttrain.evals.tasks import get_task
from posttrain.models import load_model, load_tokenizer
from posttrain.pipeline.base import on_this_machine, smoke_task_rows
from posttrain.pipeline.check import eval_tasks
from posttrain.pipeline.folder import read_json, write_json, write_text
from posttrain.recipe import Recipe, Source, to_dict
from posttrain.sources import Opened, open_source

if TYPE_CHECKING:
    from posttrain.pipeline.run import Run


def prepare_tasks(recipe: Recipe, smoke: bool) -> list[Any]:
    """The recipe's tasks with their rows, read before anything is trained."""
    tasks = []
    for spec in eval_tasks(recipe.eval):

        def opener(source: Source, seed: int, spec: Any = spec) -> Opened:
            if smoke and not on_this_machine(source):
                rows = smoke_task_rows(spec)
                return Opened([r | {theirs: r[ours] for ours, theirs in source.columns.items()} for r in rows], None, None)
            return open_source(source, seed)

        task = get_task(spec.name)
        tasks.append((task, task_rows(task, spec, opener)))
    return tasks


def evaluate_stage(run: Run, name: str, model_path: Path, key: str, scalar: bool) -> None:
    """Score a model on the recipe's tasks unless the same model was scored on the same tasks."""
    spec = run.recipe.eval
    if spec is None or not run.tasks:
        return
    path = run.folder.path / "evals" / f"{name}.json"
    mark = {"key": key, "eval": json.loads(json.dumps(to_dict(spec)))}
    if path.is_file() and all(read_json(path).get(k) == v for k, v in mark.items()):
        run.say(f"{name}: evaluated before, skipped")
        return
    if run.main:
        unset_hf_deepspeed_config()
        tokenizer = load_tokenizer(str(model_path), chat_template=run.recipe.chat_template)
        model = load_model(str(model_path), head="scalar" if scalar else "lm")
        if torch.cuda.is_available():
            model = model.to("cuda", torch.bfloat16)  # type: ignore[call-arg]
        results = evaluate(
            model,
            tokenizer,
            run.tasks,
            batch_size=spec.batch_size,
            max_new_tokens=spec.max_new_tokens,
            progress=lambda line: run.say(f"{name}: {line}"),
        )
        for task, result in results.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.transcripts)
            write_text(run.folder.path / "transcripts" / name / f"{task}.jsonl", lines)
        write_json(path, mark | {"scores": {task: result.summary() for task, result in results.items()}})
        del model
        gc.collect()
    PartialState().wait_for_everyone()
