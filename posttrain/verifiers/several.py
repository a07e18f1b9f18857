"""Several verifiers for one prompt: the ground truth is a list, an item each (Tülu 3's RLVR rows).

The score is the mean, so a completion that satisfies all of them scores 1. open-instruct's columns
`ground_truth` and `dataset` are lists then; `formats` joins the names with `+`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import Verifier, read_structure, shown


@dataclass(frozen=True)
class Several:
    """Asks every verifier about its own item of the ground truth."""

    verifiers: tuple[Verifier, ...]

    def items(self, ground_truth: Any) -> list[Any]:
        """One item per verifier.

        Raises:
            VerifierError: it is no list of as many items.
        """
        found = read_structure(ground_truth)
        if not isinstance(found, list) or len(found) != len(self.verifiers):
            raise VerifierError(
                f"{len(self.verifiers)} verifiers need a list of as many ground truths, got"
                f" {shown(ground_truth)}"
            )
        return found

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        verdicts = [
            verifier(completion, item, **row)
            for verifier, item in zip(self.verifiers, self.items(ground_truth), strict=True)
        ]
        score = sum(verdict.score for verdict in verdicts) / len(verdicts)
        fault = next((verdict.fault for verdict in verdicts if verdict.fault), "")
        return Verdict(score, "; ".join(verdict.reason for verdict in verdicts), fault)

    def check_ground_truth(self, ground_truth: Any) -> None:
        for verifier, item in zip(self.verifiers, self.items(ground_truth), strict=True):
            verifier.check_ground_truth(item)
