"""Pairs of your own: how often a model prefers the chosen answer.

`path` is a preference file, folder or hub id in any shape that preference stages read. Accuracy is
told per `source` of the rows; in a folder without that column every file is a source. Public pairs
hold empty and equal answers: such rows are left out, counted in the score's `left_out`.
"""

from __future__ import annotations

from posttrain.errors import DataError
from posttrain.evals.tasks.base import EvalTask
from posttrain.formats import Row
from posttrain.sources.adapters import get_format


class Pairs(EvalTask):
    """Base of the pair tasks, and a task itself."""

    name = "pairs"
    kind = "preference"
    leaves_out = True

    def rows(self) -> list[Row]:
        """There are none.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"task {self.name} brings no rows: give its `path`, in a recipe as"
            f" {{name: {self.name}, path: FILE}}, on the command line as --tasks {self.name}=FILE"
        )

    def problem(self, row: Row) -> Row:
        """A pair as the format of its columns writes it."""
        if not isinstance(row, dict) or {"prompt", "chosen", "rejected"} <= row.keys():
            return row
        made = list(get_format(None, row)(row))
        if len(made) != 1:
            raise DataError(f"a row must make one pair, this makes {len(made)}; split it before")
        if isinstance(made[0], DataError):
            raise made[0]
        return dict(made[0])
