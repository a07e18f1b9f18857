"""Verifiers in worker processes: of completions while others are still written, and of gold answers
before anything is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from posttrain.errors import DataError
from posttrain.generation.local import Completion
from posttrain.trainers.rewards import OWN
from posttrain.verifiers import UNVERIFIED
from posttrain.verifiers.workers.gold import SOLUTIONS, GoldReport, check_gold
from posttrain.verifiers.workers.pool import Handle, Pool

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

FAULTS = ("timeout", "crash")
READ = ("verifier", "ground_truth", "prompt", "choices", "source", *SOLUTIONS)
logger = logging.getLogger(__name__)


class Verification:
    """The verdicts on one rollout; an engine calls it with every group that is whole.

    Args:
        verifiers: number of a reward function -> name of the verifier, or `verifier`.
        rows: the problems.
        text: a completion -> what it says.
    """

    def __init__(
        self,
        pool: Pool,
        verifiers: dict[int, str],
        rows: Sequence[dict[str, Any]],
        text: Callable[[Completion], str],
    ) -> None:
        self.pool, self.verifiers, self.rows, self.text = pool, verifiers, rows, text
        self.handles: dict[tuple[int, int], list[Handle]] = {}

    def __call__(self, index: int, group: list[Completion]) -> None:
        row, texts = self.rows[index], [self.text(completion) for completion in group]
        for number, name in self.verifiers.items():
            spec = row["verifier"] if name == OWN else name
            truth = row["ground_truth"]
            self.handles[number, index] = [self.pool.submit(spec, t, truth) for t in texts]

    def scores(self) -> dict[int, torch.Tensor]:
        """Number of a reward function -> `[P, G]` scores; waits for those that are not there yet.

        Raises:
            VerifierError: a verifier cannot read a ground truth.
        """
        return {
            number: torch.tensor(
                [
                    [verdict.score for verdict in self.pool.gather(self.handles[number, index])]
                    for index in range(len(self.rows))
                ]
            )
            for number in self.verifiers
        }

    def faults(self) -> dict[str, int]:
        """How many verdicts there are not, by reason: the worker ran out of time, or ended."""
        verdicts = [v for handles in self.handles.values() for v in self.pool.gather(handles)]
        return {name: sum(v.fault == name for v in verdicts) for name in FAULTS}


def check_gold_answers(trainer: Rolling) -> GoldReport:
    """Grade the gold answer of every row, and an empty one, shared out among the processes.

    Raises:
        DataError: more than `max_wrong_gold` of the rows are graded wrongly.
    """
    state, limit = trainer.accelerator, trainer.args.max_wrong_gold
    rows = problems(trainer)
    mine = range(state.process_index, len(rows), state.num_processes)
    own = check_gold([rows[i] for i in mine], trainer.pool)
    own = replace(own, failed=[replace(f, row=mine[f.row]) for f in own.failed])
    parts: list[GoldReport] = gather_object([own])
    report = GoldReport(
        sum(part.checked for part in parts),
        sum(part.no_gold for part in parts),
        sorted((f for part in parts for f in part.failed), key=lambda f: f.row),
    )
    if limit is not None and report.share > limit:
        raise DataError(
            f"{report}\nA policy cannot learn what is graded wrongly: mend the rows or their "
            f"verifier, or raise max_wrong_gold ({limit:g}; null skips the check)"
        )
    if state.is_main_process:
        logger.log(logging.WARNING if report.failed else logging.INFO, "%s", report)
    return report


def problems(trainer: Rolling) -> list[dict[str, Any]]:
    """What verifiers read of the training rows, under the verifier that will grade them."""
    names = list(dict.fromkeys(trainer.rewards.verifiers.values()))
    data: Any = trainer.train_dataset
    if not names:
        return []
    columns = [c for c in READ if c in (getattr(data, "column_names", None) or data[0])]
    data = data.select_columns(columns) if hasattr(data, "select_columns") else data
    rows = []
    for row in data:
        for name in names:
            verifier = row["verifier"] if name == OWN else name
            if verifier != UNVERIFIED:
                rows.append({**{c: row[c] for c in columns}, "verifier": verifier})
    return rows
