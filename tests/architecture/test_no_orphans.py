"""Every method is in its room's name table, in docs/papers.md, and has a mirrored test."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.advantages import ADVANTAGES
from posttrain.evals.tasks import TASKS
from posttrain.filters import FILTERS
from posttrain.losses import POLICY_LOSSES, PREFERENCE_LOSSES
from posttrain.verifiers import VERIFIERS

ROOT = Path(__file__).resolve().parents[2]
PAPERS = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")

# not chosen by name: parts that methods share, a reward model's only loss, names joined by +
NOT_IN_A_TABLE = {
    "base", "bradley_terry", "dedup", "hash_table", "importance", "kl", "kl_control", "minhash",
    "composed", "function", "pii_patterns", "several", "value",
}  # fmt: skip
TABLES = {
    "advantages": set(ADVANTAGES),
    "filters": set(FILTERS),
    "losses": set(PREFERENCE_LOSSES) | set(POLICY_LOSSES),
    "verifiers": set(VERIFIERS),
}
METHODS = [
    (room, path.stem)
    for room in TABLES
    for path in sorted((ROOT / "posttrain" / room).glob("*.py"))
    if path.stem not in ("__init__", "base")
]


@pytest.mark.parametrize(("room", "name"), METHODS)
def test_a_method_is_listed_everywhere(room: str, name: str) -> None:
    assert name in TABLES[room] | NOT_IN_A_TABLE
    assert f"`posttrain/{room}/{name}.py`" in PAPERS
    assert (ROOT / "tests" / room / f"test_{name}.py").is_file()


@pytest.mark.parametrize("room", TABLES)
def test_a_table_names_files(room: str) -> None:
    files = {name for where, name in METHODS if where == room}
    assert files >= TABLES[room]


def test_every_task_has_a_file() -> None:
    for task in TASKS.values():
        assert task.__module__.startswith("posttrain.evals.tasks.")
