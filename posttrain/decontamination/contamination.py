"""How much of each evaluation set is in each training source: the table of Tülu 3's Table 37.

A source is contaminated for an evaluation when more than 2% of the evaluation's rows overlap with
some row of the source (arXiv:2411.15124, section 3.2).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from posttrain.decontamination.match import Decontaminator, Match
from posttrain.decontamination.prompts import EvalSet
from posttrain.errors import DataError
from posttrain.formats import Row

BATCH = 2048  # rows searched at once


@dataclass(frozen=True)
class Contamination:
    """Counts of matches, filled as the rows stream by.

    Attributes:
        eval_sets: what the rows are compared with.
        dataset_threshold: share of an evaluation's rows above which a source is contaminated.
    """

    eval_sets: Sequence[EvalSet]
    dataset_threshold: float = 0.02
    rows: Counter[str] = field(default_factory=Counter)
    train_rows: Counter[tuple[str, int]] = field(default_factory=Counter)
    eval_rows: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, source: str, matches: Sequence[Match]) -> None:
        """Count one row of a source and what it matches."""
        self.rows[source] += 1
        if not matches:
            return
        sets = set()
        for match in matches:
            sets.add(match.eval_set)
            self.eval_rows[source, match.eval_set].add(match.eval_row)
        self.train_rows.update((source, eval_set) for eval_set in sets)

    def table(self) -> list[dict[str, Any]]:
        """One line per source and evaluation set, in the order of coming; shares from 0 to 1."""
        return [self._line(source, i) for source in self.rows for i in range(len(self.eval_sets))]

    def _line(self, source: str, eval_set: int) -> dict[str, Any]:
        of_eval = len(self.eval_rows.get((source, eval_set), ()))
        of_train = self.train_rows[source, eval_set]
        share = of_eval / len(self.eval_sets[eval_set].prompts)
        return {
            "source": source,
            "eval_set": self.eval_sets[eval_set].name,
            "eval_rows": len(self.eval_sets[eval_set].prompts),
            "matched_eval_rows": of_eval,
            "eval_share": share,
            "train_rows": self.rows[source],
            "matched_train_rows": of_train,
            "train_share": of_train / max(self.rows[source], 1),
            "contaminated": share > self.dataset_threshold,
        }

    def contaminated(self) -> dict[str, list[str]]:
        """The contaminated sources, each with the evaluation sets that it holds too much of."""
        found: dict[str, list[str]] = defaultdict(list)
        for line in self.table():
            if line["contaminated"]:
                found[line["source"]].append(line["eval_set"])
        return dict(found)

    def check(self) -> None:
        """What `action: error` asks for.

        Raises:
            DataError: a source is contaminated; with its worst evaluation set.
        """
        bad = [line for line in self.table() if line["contaminated"]]
        if bad:
            worst = max(bad, key=lambda line: float(line["eval_share"]))
            raise DataError(
                f"{worst['source']} holds {worst['matched_eval_rows']} of the "
                f"{worst['eval_rows']} prompts of {worst['eval_set']} ({worst['eval_share']:.1%}, "
                f"more than {self.dataset_threshold:.1%}): remove the source, or set "
                "`decontaminate: {action: drop_rows}`"
            )


def contamination(
    rows: Iterable[Row], decontaminator: Decontaminator, dataset_threshold: float = 0.02
) -> Contamination:
    """Count the matches of rows, each with its `source`, in one pass."""
    counts = Contamination(decontaminator.eval_sets, dataset_threshold)
    stream = iter(rows)
    while part := list(islice(stream, BATCH)):
        for row, matches in zip(part, decontaminator.matches(part), strict=True):
            counts.add(str(row.get("source", "")), matches)
    return counts
