"""Drops rows that say exactly what an earlier row said, whatever source they came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from posttrain.filters.hash_table import HashTable
from posttrain.formats import Row

# Where a row came from, not what it says.
PROVENANCE = frozenset(
    {"source", "source_index", "id", "uid", "uuid", "index", "row", "subset", "split", "url"}
    | {"meta", "metadata", "license", "licence", "created", "timestamp"}
)


@dataclass(eq=False)
class ExactDuplicates:
    """Remembers 96 bits of each kept row's digest, in 16 to 32 bytes per row.

    Two rows are equal when all but the provenance (`source`, `id`, ...) is equal as JSON. The
    chance that any of n different rows is dropped by mistake is n^2 / 2^97: 6e-12 for 10^9 rows.
    """

    def __post_init__(self) -> None:
        self._seen = HashTable()

    def mark(self, row: Row) -> bytes:
        """A 16-byte digest of what the row says."""
        content = {name: value for name, value in row.items() if name not in PROVENANCE}
        text = json.dumps(content, sort_keys=True, default=repr)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def judge(self, mark: bytes) -> str | None:
        """The reason to drop a row whose digest was seen before."""
        key, check = int.from_bytes(mark[:8], "little"), int.from_bytes(mark[8:12], "little")
        if check in self._seen.find(key):
            return "an earlier row is the same"
        self._seen.add(key, check)
        return None

    def __call__(self, row: Row) -> str | None:
        return self.judge(self.mark(row))
