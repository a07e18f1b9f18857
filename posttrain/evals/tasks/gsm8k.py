"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): word problems, exact match of the number.

Zero-shot through the model's chat template. Tülu 3 reports 8 shots as turns of a conversation, so
these scores stand beside each other, not beside that table.
"""

from __future__ import annotations

from typing import ClassVar

from posttrain.evals.tasks.base import EvalTask
from posttrain.recipe import Source


class GSM8K(EvalTask):
    """Test split: 1,319 problems."""

    name = "gsm8k"
    version = "2-zero-shot"
    verifier = "gsm8k"
    source: ClassVar[Source | None] = Source(
        path="openai/gsm8k",
        name="main",
        split="test",
        columns={"prompt": "question", "ground_truth": "answer"},
    )
