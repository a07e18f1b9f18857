"""Drops rows that say exactly what an earlier row said, whatever source they came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from posttrain.formats import Row


@dataclass(frozen=True)
class ExactDuplicates:
    """Remembers a hash per row it has kept."""

    seen: set[bytes] = field(default_factory=set, repr=False)

    def __call__(self, row: Row) -> str | None:
        content = {name: value for name, value in row.items() if name != "source"}
        text = json.dumps(content, sort_keys=True)
        mark = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if mark in self.seen:
            return "an earlier row is the same"
        self.seen.add(mark)
        return None
