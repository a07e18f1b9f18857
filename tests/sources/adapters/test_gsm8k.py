"""GSM8K rows as worked answers and as problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.gsm8k import GSM8K
from posttrain.verifiers import verify

RAW = {"question": "48/2 thousand?", "answer": "It is 48/2=<<48/2=24>>24.\n#### 24,000"}


def test_both_uses() -> None:
    (row,) = GSM8K()(RAW)
    assert row == {
        "prompt": "48/2 thousand?",
        "completion": "It is 48/2=24.\n#### 24,000",
        "ground_truth": "24000",
        "verifier": "gsm8k",
    }
    assert GSM8K(calculations=True)(RAW)[0]["completion"] == RAW["answer"]


@pytest.mark.parametrize("answer", ["24", "24 ####", ""])
def test_no_number(answer: str) -> None:
    with pytest.raises(DataError, match="must end with ####"):
        GSM8K()(RAW | {"answer": answer})


def test_every_real_answer_is_right(shared_rows: Callable[..., Any]) -> None:
    for raw in shared_rows("gsm8k/train.jsonl.gz")[:1000]:
        (row,) = GSM8K()(raw)
        problem = to_row("problem", row)
        assert verify("gsm8k", row["completion"], problem["ground_truth"]).score == 1
        assert "<<" not in row["completion"]
