"""LLMBar (Zeng et al. 2023, arXiv:2310.07641): which of two outputs follows the instruction.

The hub holds a script and no rows: `path` names a file, or the folder of all five, of rows

    {"input": "...", "output_1": "...", "output_2": "...", "label": 1}

whose label is the better output.
"""

from __future__ import annotations

from posttrain.errors import DataError
from posttrain.evals.tasks.pairs import Pairs
from posttrain.formats import Row, shown

FIELDS = ("input", "output_1", "output_2", "label")


class LLMBar(Pairs):
    """419 pairs: one natural set, four adversarial ones whose worse output looks better."""

    name = "llmbar"
    leaves_out = False

    def problem(self, row: Row) -> Row:
        """The output that the label names is the chosen one; pairs stay as they are.

        Raises:
            DataError: a field is missing, or the label is not 1 or 2.
        """
        if {"chosen", "rejected"} <= row.keys():
            return super().problem(row)
        if missing := [name for name in FIELDS if row.get(name) is None]:
            raise DataError(f"an LLMBar row needs {', '.join(FIELDS)}; {missing[0]} is missing")
        label = str(row["label"])
        if label not in ("1", "2"):
            raise DataError(f"`label` must be 1 or 2, got {shown(row['label'])}")
        chosen, rejected = row["output_1"], row["output_2"]
        if label == "2":
            chosen, rejected = rejected, chosen
        pair = {"prompt": row["input"], "chosen": chosen, "rejected": rejected}
        return pair | {"source": row.get("source") or ""}
