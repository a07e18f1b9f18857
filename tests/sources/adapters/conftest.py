"""Real rows, read from the folder beside the checkout where there is one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def shared_rows() -> Callable[[str], list[dict[str, Any]]]:
    folder = Path(__file__).resolve().parents[3].parent / "shared" / "data"

    def read(name: str) -> list[dict[str, Any]]:
        path = folder / name
        if not path.exists():
            pytest.skip(f"needs the public data file {name} in {folder}")
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open()
        with opened as lines:
            return [json.loads(line) for line in lines]

    return read
