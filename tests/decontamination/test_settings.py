"""The recipe's `decontaminate:` key."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.decontamination.settings import Against, Decontamination, read_settings
from posttrain.errors import RecipeError


def test_on_off_and_given() -> None:
    assert read_settings(True) == read_settings({}) == Decontamination()
    assert read_settings(False) is None
    assert read_settings(
        {
            "n": 13,
            "threshold": 0,
            "action": "drop_set",
            "fields": ["text"],
            "against": ["a.jsonl", {"path": "b.jsonl", "fields": ["q", "options"]}],
        }
    ) == Decontamination(
        n=13,
        threshold=0,
        action="drop_set",
        fields=("text",),
        against=(Against("a.jsonl"), Against("b.jsonl", ("q", "options"))),
    )
    assert read_settings({"against": "a.jsonl"}) == Decontamination(against=(Against("a.jsonl"),))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"treshold": 1}, "decontaminate.treshold: unknown key; did you mean 'threshold'?"),
        ({"mode": "exactly"}, "unknown mode 'exactly'; did you mean 'exact'?"),
        ({"n": "8"}, "`n` must be a whole number from 1 to 1000, got '8'"),
        ({"dataset_threshold": 2}, "`dataset_threshold` must be a number from 0 to 1, got 2"),
        ({"action": "drop"}, "unknown action 'drop'; did you mean 'drop_set'?"),
        ({"against": 3}, "`against` must be a list of files, got 3"),
        ({"against": [{"file": "a"}]}, "`against` must hold files or {path, fields}"),
        ({"against": [{"path": "a", "fields": "all"}]}, "`against: fields` must be `prompt` or"),
        ({"fields": "prompts"}, "`fields` must be `prompt` or `all` or a list of field names"),
        ({"fields": []}, "`fields` must be `prompt` or `all` or a list of field names"),
        ({"embed": 3}, "`embed` must be `lexical` or a model, got 3"),
        ({"fields": 3}, "`fields` must be `prompt` or `all`"),
    ],
)
def test_faults(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_settings(spec)
    assert says in str(caught.value)


def test_unknown_keys_come_together() -> None:
    with pytest.raises(RecipeError) as caught:
        read_settings({"on": 1, "off": 2, "n": 0})
    assert len(caught.value.faults) == 3
