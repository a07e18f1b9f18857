"""What training rows are checked against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from posttrain.decontamination import Decontamination, Decontaminator


@dataclass(frozen=True)
class Guard:
    """Evaluation prompts that are looked for in the rows, and what to do about a match."""

    settings: Decontamination
    finder: Decontaminator

    def record(self) -> dict[str, Any]:
        """For the manifest: the settings, and every evaluation set with its number of rows."""
        sets = {one.name: len(one.prompts) for one in self.finder.eval_sets}
        return {**asdict(self.settings), "eval_sets": sets}
