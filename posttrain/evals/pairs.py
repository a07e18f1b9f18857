"""Whether a model prefers the right answer: of two (pairs), or of n (best-of-n).

A pair is best-of-two: the model picks the answer to which it gives the higher number, its score if
it is a reward model, else its log-probability or, beside a reference, DPO's implicit reward. Where
answers tie at the top, one of them is picked at random: a tied pair counts half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Any

import torch

from posttrain.errors import DataError
from posttrain.evals.result import Result, summarise
from posttrain.evals.spread import spread
from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row
from posttrain.trainers.calibration import calibration_bins, calibration_error
from posttrain.trainers.scorer import Scorer


def choose(
    scorer: Scorer,
    task: EvalTask,
    rows: Sequence[Row],
) -> Result:
    """Let a model choose among the answers of every row.

    Args:
        rows: preference rows, or `prompt`, `answers` and `correct` (0 to 1 each).

    Returns:
        The share that was picked right. Beside it per source, and for a reward model on pairs how
        well it is calibrated; for more than two answers the same with fewer of them to pick from.

    Raises:
        DataError: an answer that cannot be scored.
    """
    choices = [as_choice(row) for row in rows]
    done = spread(choices, partial(numbers, scorer))
    if wrong := next((d.wrong for d in done if d.wrong), None):
        raise DataError(f"task {task.name}: {wrong}")
    values, cut = [d.values for d in done], sum(d.cut for d in done)
    scores = [picked(v, choice["correct"]) for v, choice in zip(values, choices, strict=True)]
    transcripts = [
        transcript(choice, v, score, scorer)
        for choice, v, score in zip(choices, values, scores, strict=True)
    ]
    score, stderr, more = by_source(task, [c["source"] for c in choices], scores)
    more |= extras(values, choices, scorer.scalar)
    if cut:
        more["answers_cut"] = cut
    if left_out := getattr(rows, "left_out", {}):
        more["left_out"] = dict(left_out)
    return Result(score, len(scores), stderr, task.version, transcripts, more)


@dataclass(frozen=True)
class Numbers:
    """Numbers of a row's answers, and what else the process that made them has to tell."""

    values: list[float]
    cut: int = 0
    wrong: str = ""


def numbers(scorer: Scorer, choices: Sequence[Row]) -> list[Numbers]:
    """The share of one process. An error is handed on, for the others wait for an answer."""
    before = scorer.cut
    try:
        values = scorer(choices)
    except DataError as error:
        return [Numbers([], wrong=str(error)) for _ in choices]
    first = Numbers(values[0], scorer.cut - before)
    return [first, *(Numbers(v) for v in values[1:])]


def as_choice(row: Row) -> Row:
    """A pair as a choice between two answers; other rows are one already.

    Raises:
        DataError: the sides of a pair are more than one turn.
    """
    if "answers" in row:
        return {"source": "", **row}
    for side in ("chosen", "rejected"):
        if len(row[side]) != 1:
            raise DataError("the two sides of a pair differ before their last turn; cut them there")
    answers = [row["chosen"][0], row["rejected"][0]]
    return {"source": "", **row, "answers": answers, "correct": [1.0, 0.0]}


def picked(values: Sequence[float], correct: Sequence[float]) -> float:
    """How right the answer with the highest number is; the mean over those that tie for it."""
    top = max(values)
    best = [c for v, c in zip(values, correct, strict=True) if v == top]
    return sum(best) / len(best)


def transcript(choice: Row, values: Sequence[float], score: float, scorer: Scorer) -> Row:
    """What a person reads: the answer that was picked, and the numbers of all."""
    best = max(range(len(values)), key=values.__getitem__)
    texts = [a if isinstance(a, str) else a["content"] for a in choice["answers"]]
    what = "scores" if scorer.scalar else "log-probs"
    if scorer.reference is not None:
        what = "implicit rewards"
    right = max(range(len(texts)), key=choice["correct"].__getitem__)
    return {
        "prompt": choice["prompt"],
        "completion": texts[best],
        "score": score,
        "reason": f"{what} of the answers: {', '.join(f'{v:.2f}' for v in values)}",
        "ground_truth": texts[right],
    }


def by_source(
    task: EvalTask, sources: Sequence[str], scores: Sequence[float]
) -> tuple[float, float, dict[str, Any]]:
    """Score and standard error under the task's weights of its sources, and every source's own."""
    groups: dict[str, list[float]] = {}
    for source, score in zip(sources, scores, strict=True):
        groups.setdefault(source, []).append(score)
    parts = {name: summarise(mine, task.version, []) for name, mine in groups.items()}
    own = {name: {"score": r.score, "n": r.n, "stderr": r.stderr} for name, r in parts.items()}
    more: dict[str, Any] = {"by_source": own} if len(parts) > 1 else {}
    weights = task.weights({name: r.n for name, r in parts.items()})
    if weights is None:
        whole = summarise(scores, task.version, [])
        return whole.score, whole.stderr, more
    score = sum(w * parts[name].score for name, w in weights.items())
    variance = sum((w * parts[name].stderr) ** 2 for name, w in weights.items())
    return score, variance**0.5, more


def extras(
    values: Sequence[Sequence[float]], choices: Sequence[Row], scalar: bool
) -> dict[str, Any]:
    """Calibration of scores on pairs; for larger choices the curve over their size."""
    corrects = [choice["correct"] for choice in choices]
    sizes = [len(v) for v in values]
    if max(sizes) > 2:
        most = min(sizes)
        at = sorted({1 << i for i in range(most.bit_length())} | {most})
        pairs = list(zip(values, corrects, strict=True))
        curve = {str(k): sum(best_of(k, *pair) for pair in pairs) / len(pairs) for k in at}
        return {"best_of": curve, "ceiling": sum(max(c) for c in corrects) / len(corrects)}
    if not scalar:
        return {}
    gaps = [(v[0] - v[1]) * (c[0] - c[1]) for v, c in zip(values, corrects, strict=True)]
    return {"calibration_error": calibration_error(calibration_bins(torch.tensor(gaps)))}


def best_of(k: int, values: Sequence[float], correct: Sequence[float]) -> float:
    """How right the pick is on average when only k of the n answers are there.

    Over all subsets of k: the r-th lowest answer (from 0) is picked in C(r, k - 1) of them.
    """
    means = {v: picked([w == v for w in values], correct) for v in set(values)}  # ties share
    ranked = [means[v] for v in sorted(values)]
    total = sum(comb(r, k - 1) * c for r, c in enumerate(ranked))
    return total / comb(len(values), k)
