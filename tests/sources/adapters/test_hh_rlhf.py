"""Transcripts become turns, and nothing of their text is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters.hh_rlhf import HHRLHF, turns_of


def test_turns() -> None:
    text = "\n\nHuman: Say Human: twice.\n\nAssistant: Human:\nHuman:\n\nHuman: Thanks"
    assert [(t["role"], t["content"]) for t in turns_of(text)] == [
        ("user", "Say Human: twice."),
        ("assistant", "Human:\nHuman:"),
        ("user", "Thanks"),
    ]


def test_the_shared_turns_are_the_prompt() -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    raw = HHRLHF()({"chosen": f"{start} d", "rejected": f"{start} e"})[0]
    row = to_row("preference", raw)
    assert [m["content"] for m in row["prompt"]] == ["a", "b", "c"]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("d", "e")
    assert to_row("conversation", raw)["messages"][-1]["content"] == "d"


@pytest.mark.parametrize("text", ["", "hello", "hello\n\nHuman: a"])
def test_no_transcript(text: str) -> None:
    with pytest.raises(DataError, match="must begin with Human: or Assistant:"):
        turns_of(text)


def test_the_real_file(shared_rows: Callable[..., Any]) -> None:
    refused: Counter[str] = Counter()
    for raw in shared_rows("hh_rlhf/harmless-base_test.jsonl.gz"):
        try:
            row = to_row("preference", HHRLHF()(raw)[0])
        except DataError as error:
            refused[str(error)] += 1
            continue
        marks = raw["chosen"].count("\n\nHuman:") + raw["chosen"].count("\n\nAssistant:")
        assert len(row["prompt"]) + len(row["chosen"]) == marks
    assert refused == {"the last turn of `chosen` says nothing": 4}
