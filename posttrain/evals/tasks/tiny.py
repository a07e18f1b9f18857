"""The held-out problems and pairs of the generated tiny stack (see sources/tiny.py)."""

from __future__ import annotations

import itertools

from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row, Verdict
from posttrain.sources import tiny

SEED = 20_000_000  # the draw is the same for every run, so runs can be compared
NUM_PROBLEMS = 400
NUM_PAIRS = 300


class Tiny(EvalTask):
    """Word problems and writing constraints; a problem counts when it is right in full."""

    name = "tiny"
    version = "2"  # 1 had fewer lists

    def rows(self) -> list[Row]:
        return list(itertools.islice(tiny.problems(SEED, held=True), NUM_PROBLEMS))

    def grade(self, completion: str, row: Row) -> Verdict:
        verdict = super().grade(completion, row)
        return Verdict(float(verdict.score >= 1), verdict.reason)


class TinyPreference(EvalTask):
    """How often the chosen answer is the more probable one (reward models: the better scored)."""

    name = "tiny_preference"
    kind = "preference"

    def rows(self) -> list[Row]:
        return list(itertools.islice(tiny.preferences(SEED, held=True), NUM_PAIRS))
