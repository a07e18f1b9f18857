"""Best-of-n: of n answers to a prompt, how right is the one that the model picks?

`path` names rows of any n, in one of these shapes:

    {"prompt": "...", "answers": ["...", ...], "correct": [0, 1, ...]}
    {"prompt": "...", "answers": ["...", ...], "ground_truth": "...", "verifier": "gsm8k"}
    {"prompt": "...", "chosen": ["...", ...], "rejected": ["...", ...]}

`correct` may be shares of 1, or the place of the right answer, from 0. The second shape is graded
by the verifier; the third is that of RewardBench 2 (Malik et al. 2025, arXiv:2506.01937), whose
rows with one right answer of four are scored here as there.
"""

from __future__ import annotations

from typing import Any

from posttrain.errors import DataError
from posttrain.evals.tasks.pairs import Pairs
from posttrain.formats import Row, shown, to_row
from posttrain.verifiers import verify


class BestOfN(Pairs):
    """The share of prompts for which a right answer is picked."""

    name = "best_of_n"
    leaves_out = False
    kind = "answers"

    def read(self, raw: Row) -> Row:
        """A prompt, its answers and how right each of them is.

        Raises:
            DataError: fewer than two answers, or they cannot be judged.
        """
        answers, correct = answers_of(raw)
        if len(answers) < 2 or not all(isinstance(a, str) and a.strip() for a in answers):
            raise DataError(f"`answers` must be two or more texts, got {shown(answers)}")
        if len(correct) != len(answers) or not all(0 <= c <= 1 for c in correct):
            raise DataError(
                f"`correct` must say of each of {len(answers)} answers how right it is, 0 to 1, "
                f"got {shown(correct)}"
            )
        asked = {k: raw[k] for k in ("prompt", "messages", "tools") if raw.get(k) is not None}
        row = to_row("problem", {**asked, "ground_truth": "-", "verifier": "-"})
        del row["ground_truth"], row["verifier"]
        source = raw.get("source") or raw.get("subset") or ""
        return row | {"answers": answers, "correct": correct, "source": source}


def answers_of(raw: Row) -> tuple[list[Any], list[float]]:
    """All answers of a row and how right each is."""
    if raw.get("answers") is None:
        chosen, rejected = raw.get("chosen"), raw.get("rejected")
        if not isinstance(chosen, list) or not isinstance(rejected, list):
            raise DataError(
                "a row needs `answers`, or lists of them in `chosen` and `rejected`; it has "
                f"{shown(sorted(raw))}"
            )
        return [*chosen, *rejected], [1.0] * len(chosen) + [0.0] * len(rejected)
    answers, correct = list(raw["answers"]), raw.get("correct")
    if correct is None:
        if raw.get("ground_truth") is None or not isinstance(raw.get("verifier"), str):
            raise DataError("a row needs `correct`, or `ground_truth` and `verifier`")
        graded = [verify(raw["verifier"], answer, raw["ground_truth"]) for answer in answers]
        return answers, [verdict.score for verdict in graded]
    if isinstance(correct, int) and not isinstance(correct, bool):
        if not 0 <= correct < len(answers):
            raise DataError(f"`correct` is {correct}, and there are {len(answers)} answers")
        correct = [i == correct for i in range(len(answers))]
    return answers, [float(c) for c in correct]
