"""Evaluation of a stage's model inside a run: scores, transcripts, and nothing done twice."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain.evals.result import Result
from posttrain.evals.run import evaluate, load, task_rows
from posttrain.evals.tasks import get_task
from posttrain.pipeline.base import on_this_machine, smoke_task_rows, under_columns
from posttrain.pipeline.check import eval_tasks, hub_options
from posttrain.pipeline.folder import read_json, write_json, write_text
from posttrain.recipe import Recipe, Source, to_dict
from posttrain.sources import Opened, open_source

if TYPE_CHECKING:
    from posttrain.pipeline.run import Run


def prepare_tasks(recipe: Recipe, smoke: bool = False) -> list[Any]:
    """The recipe's tasks with their rows, read before anything is trained."""
    tasks = []
    for spec in eval_tasks(recipe.eval):

        def opener(source: Source, seed: int, spec: Any = spec) -> Opened:
            if smoke and not on_this_machine(source):
                return under_columns(smoke_task_rows(spec), source)
            return open_source(source, seed)

        task = get_task(spec.name)
        tasks.append((task, task_rows(task, spec, opener)))
    return tasks


def evaluate_stage(run: Run, name: str, model_path: str, key: str) -> None:
    """Score a model on the recipe's tasks unless the same model was scored on the same tasks."""
    spec = run.recipe.eval
    if spec is None or not run.tasks:
        return
    path = run.folder.path / "evals" / f"{name}.json"
    mark = {"key": key, "eval": json.loads(json.dumps(to_dict(spec)))}
    if path.is_file() and all(read_json(path).get(k) == v for k, v in mark.items()):
        run.say(f"{name}: evaluated before, skipped")
        return
    results = score_model(run, name, model_path)
    if run.main:
        for task, result in results.items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in result.transcripts]
            write_text(run.folder.path / "transcripts" / name / f"{task}.jsonl", "".join(lines))
        scores = {task: result.summary() for task, result in results.items()}
        write_json(path, mark | {"scores": scores})
    PartialState().wait_for_everyone()


def score_model(run: Run, name: str, model_path: str) -> dict[str, Result]:
    """The model on every task. Each process holds all of it and answers its share of the rows."""
    spec, recipe = run.recipe.eval, run.recipe
    assert spec is not None
    unset_hf_deepspeed_config()
    model, tokenizer = load(model_path, recipe.chat_template, **hub_options(recipe, model_path))
    results = evaluate(
        model,
        tokenizer,
        run.tasks,
        batch_size=spec.batch_size,
        max_new_tokens=spec.max_new_tokens,
        progress=lambda line: run.say(f"{name}: {line}"),
    )
    del model
    gc.collect()
    return results
