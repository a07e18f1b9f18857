"""Whether every row's gold answer scores 1 and an empty one 0, before a step is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import VerifierError
from posttrain.formats import SEVERAL, Row
from posttrain.verifiers.base import read_structure
from posttrain.verifiers.workers.pool import Pool

# Columns that may hold a whole answer known to be right, the first that a row has.
SOLUTIONS = ("solution", "reference_solution", "canonical_solution", "gold", "reference")
_SHOWN = 5


@dataclass(frozen=True)
class GoldRow:
    """A row whose gold answer fails, or whose empty answer passes."""

    row: int
    verifier: str
    source: str
    reason: str


@dataclass(frozen=True)
class GoldReport:
    """What the check found.

    Attributes:
        checked: rows with a gold answer; the others (`no_gold`) were tried empty only.
        failed: rows that their verifier grades wrongly.
    """

    checked: int
    no_gold: int
    failed: Sequence[GoldRow] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Failed rows of all rows."""
        return len({f.row for f in self.failed}) / max(self.checked + self.no_gold, 1)

    def __str__(self) -> str:
        rows = self.checked + self.no_gold
        if not self.failed:
            return f"gold answers: {self.checked} of {rows} rows tried, all score 1"
        lines = [
            f"  row {f.row} ({f.source or 'no source'}, {f.verifier}): {f.reason}"
            for f in self.failed[:_SHOWN]
        ]
        more = [f"  and {len(self.failed) - _SHOWN} more"] if len(self.failed) > _SHOWN else []
        head = f"gold answers: {len(self.failed)} of {rows} rows are graded wrongly"
        return "\n".join([f"{head} ({self.share:.1%})", *lines, *more])


def gold_answer(row: Mapping[str, Any]) -> str | None:
    """A completion that must score 1, or `None` where the row tells of none."""
    name, truth = str(row["verifier"]).lower(), row["ground_truth"]
    if SEVERAL in name:
        return None
    for column in SOLUTIONS:
        if isinstance(row.get(column), str) and row[column].strip():
            text = row[column]
            return f"```python\n{text}\n```" if name == "code" and "```" not in text else text
    if name == "math":
        text = str(truth)
        return text if "\\boxed" in text else f"\\boxed{{{text}}}"
    if name in ("gsm8k", "judge"):
        return str(truth)
    if name in ("string_match", "string_matcher"):
        value = read_structure(truth)
        text = str(value[0]) if isinstance(value, list) and value else str(truth)
        return f"<answer>{text}</answer>" if name == "string_matcher" else text
    if name in ("multiple_choice", "mcq"):
        value = read_structure(truth)
        value = value.get("answer") if isinstance(value, Mapping) else value
        return f"The answer is ({chr(65 + value)})." if isinstance(value, int) else str(value)
    return None


def check_gold(rows: Sequence[Row], pool: Pool) -> GoldReport:
    """Grade every row's gold answer and an empty one.

    Args:
        rows: problems: `verifier`, `ground_truth`, and for `code` a column of `SOLUTIONS`.
    """
    golds = [gold_answer(row) for row in rows]
    tried = []
    for number, (row, gold) in enumerate(zip(rows, golds, strict=True)):
        for answer, wanted in ((gold, 1.0), ("", 0.0)):
            if answer is not None:
                columns = {k: v for k, v in row.items() if k in ("prompt", "choices")}
                handle = pool.submit(row["verifier"], answer, row["ground_truth"], **columns)
                tried.append((number, row, wanted, handle))
    failed: list[GoldRow] = []
    for number, row, wanted, handle in tried:
        try:
            verdict = handle.result()
        except VerifierError as error:
            reason = str(error)
        else:
            if verdict.score == wanted or not verdict.applies:
                continue
            what = "its gold answer" if wanted else "an empty answer"
            reason = f"{what} scores {verdict.score:g}: {verdict.reason}"
        if not failed or failed[-1].row != number:
            failed.append(GoldRow(number, row["verifier"], str(row.get("source", "")), reason))
    with_gold = sum(gold is not None for gold in golds)
    return GoldReport(with_gold, len(rows) - with_gold, failed)
