"""IFEval (Zhou et al. 2023, arXiv:2311.07911): prompt-level loose accuracy, which Tülu 3 reports.

A prompt counts when one of the eight loose variants of the answer (without first or last line,
without asterisks) meets all of its constraints.
"""

from __future__ import annotations

from typing import ClassVar

from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row, Verdict
from posttrain.recipe import Source
from posttrain.verifiers import verify
from posttrain.verifiers.ifeval import loose_variants


class IFEval(EvalTask):
    """541 prompts of 25 kinds of verifiable instructions."""

    name = "ifeval"
    version = "2-loose"
    verifier = "ifeval"
    source: ClassVar[Source | None] = Source(path="google/IFEval", split="train")

    def problem(self, row: Row) -> Row:
        if "ground_truth" in row:
            return {**row, "verifier": self.verifier}
        kwargs = [{k: v for k, v in given.items() if v is not None} for given in row["kwargs"]]
        truth = {"instruction_id_list": row["instruction_id_list"], "kwargs": kwargs}
        return {"prompt": row["prompt"], "ground_truth": truth, "verifier": self.verifier}

    def grade(self, completion: str, row: Row) -> Verdict:
        verdicts = [verify("ifeval", v, row["ground_truth"]) for v in loose_variants(completion)]
        best = max(verdicts, key=lambda verdict: verdict.score)
        return Verdict(float(best.score >= 1), best.reason)
