"""Seed tasks with several instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from posttrain.sources.adapters.self_instruct import SelfInstruct


def test_every_instance_is_a_row() -> None:
    instances = [{"input": "", "output": "a"}, {"input": "x", "output": "b"}]
    rows = SelfInstruct()({"instruction": "Do.", "instances": instances})
    assert [(r["prompt"], r["completion"]) for r in rows] == [("Do.", "a"), ("Do.\n\nx", "b")]


def test_the_real_file(shared_rows: Callable[..., Any]) -> None:
    raws = shared_rows("self_instruct/seed_tasks.jsonl")
    rows = [row for raw in raws for row in SelfInstruct()(raw)]
    assert len(rows) == sum(len(raw["instances"]) for raw in raws) == 175
