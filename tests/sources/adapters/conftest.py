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
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        return [json.loads(line) for line in text.split("\n") if line]

    return read
