"""Several verifiers with one ground truth: weights, and gates that some parts wait behind.

    {answer: math, format: {function: "rewards:boxed"}, weights: {format: 0.1},
     gate: {format: answer}}

is `math` plus a tenth of `format`, which counts only where `answer` scores 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import Verdict
from posttrain.verifiers.base import Verifier


@dataclass(frozen=True)
class Composed:
    """The weighted mean of the parts that apply; a part behind a closed gate counts 0.

    Attributes:
        parts: a name for each verifier.
        weights: 1 where none is given; the score is divided by their sum.
        gates: part -> the part that must score 1 for it to count.
        own: parts with a ground truth of their own, which is the entry of that name.
    """

    parts: Mapping[str, Verifier]
    weights: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for what, names in (
            ("weights", set(self.weights)),
            ("gates", {*self.gates, *self.gates.values()}),
        ):
            if unknown := names - set(self.parts):
                raise VerifierError(
                    f"{what} name {sorted(unknown)}; the parts are {sorted(self.parts)}"
                )
        if any(weight < 0 for weight in self.weights.values()) or self._total() <= 0:
            raise VerifierError(f"weights must be 0 or more, and one above 0: {dict(self.weights)}")
        if any(self._depth(part) > len(self.gates) for part in self.gates):
            raise VerifierError(f"gates wait for each other: {dict(self.gates)}")

    def check_ground_truth(self, ground_truth: Any) -> None:
        for name, part in self.parts.items():
            part.check_ground_truth(self._truth(name, ground_truth))

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        """Raises: VerifierError where a ground truth cannot be read."""
        verdicts: dict[str, Verdict] = {}
        reasons, total, weights = [], 0.0, 0.0
        for name in sorted(self.parts, key=self._depth):
            gate = self.gates.get(name)
            if gate is not None and not (verdicts[gate].applies and verdicts[gate].score >= 1):
                verdicts[name] = Verdict(0.0, f"waits for {gate}")
            else:
                truth = self._truth(name, ground_truth)
                verdicts[name] = self.parts[name](completion, truth, **row)
        for name in self.parts:
            verdict, weight = verdicts[name], self.weights.get(name, 1.0)
            if verdict.applies:
                total, weights = total + weight * verdict.score, weights + weight
            reasons.append(f"{name}: {verdict.reason}")
        fault = next((v.fault for v in verdicts.values() if v.fault), "")
        score = total / weights if weights else 0.0
        return Verdict(score, "; ".join(reasons), fault, applies=weights > 0)

    def _total(self) -> float:
        return sum(self.weights.get(name, 1.0) for name in self.parts)

    def _depth(self, name: str) -> int:
        """How many gates stand before a part; more than there are gates: they go round."""
        depth = 0
        while name in self.gates and depth <= len(self.gates):
            name, depth = self.gates[name], depth + 1
        return depth

    def _truth(self, name: str, ground_truth: Any) -> Any:
        if name not in self.own:
            return ground_truth
        if not isinstance(ground_truth, Mapping) or name not in ground_truth:
            raise VerifierError(f"{name} needs an entry {name!r} in the ground truth")
        return ground_truth[name]
