"""GSM8K: worked answers that end with `#### number` (arXiv:2110.14168)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.sources.adapters.base import text

CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class GSM8K:
    r"""openai/gsm8k: an SFT row (the worked answer) and a problem (the number) in one.

        {"question": "Natalia sold clips to 48 of her friends in April, …",
         "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n …\n#### 72"}

    Attributes:
        calculations: keep the calculator's marks (`<<48/2=24>>`) in the worked answer.
    """

    calculations: bool = False

    def __call__(self, raw: Any) -> list[Row]:
        question, answer = text(raw, "question"), text(raw, "answer")
        _, marked, truth = answer.rpartition("####")
        if not marked or not truth.strip():
            raise DataError("`answer` must end with #### and the number")
        worked = answer if self.calculations else CALCULATION.sub("", answer)
        return [
            {
                "prompt": question,
                "completion": worked,
                "ground_truth": truth.strip().replace(",", ""),
                "verifier": "gsm8k",
            }
        ]
