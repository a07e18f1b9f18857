"""Self-Instruct's task files: one instruction, several instances (arXiv:2212.10560)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row
from posttrain.sources.adapters.base import items, maybe_text, text


@dataclass(frozen=True)
class SelfInstruct:
    """The 175 seed tasks of yizhongw/self-instruct; every instance is a row.

    {"id": "seed_task_0", "name": "breakfast_suggestion", "is_classification": false,
     "instruction": "Is there anything I can eat for a breakfast that doesn't include eggs, …",
     "instances": [{"input": "", "output": "Yes, you can have 1 oatmeal banana protein shake …"}]}
    """

    def __call__(self, raw: Any) -> list[Row]:
        instruction, rows = text(raw, "instruction"), []
        for instance in items(raw, "instances"):
            given = maybe_text(instance, "input")
            prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
            rows.append({"prompt": prompt, "completion": text(instance, "output")})
        return rows
