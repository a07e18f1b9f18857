"""64-bit keys -> 32-bit values in 12 bytes a slot, where a Python dict takes about 150."""

from __future__ import annotations

from array import array


class HashTable:
    """Open addressing with linear probing, at most 3/4 full.

    16 to 32 bytes per entry, 48 while it grows.
    Keys must be hashes already (their low bits choose the slot). A key may hold several values.
    """

    def __init__(self) -> None:
        self._resize(1024)

    def __len__(self) -> int:
        return self._entries

    def find(self, key: int) -> list[int]:
        """The values added under the key."""
        key = key or 1  # 0 marks an empty slot
        keys, mask = self._keys, self._mask
        found = []
        slot = key & mask
        while other := keys[slot]:
            if other == key:
                found.append(self._values[slot])
            slot = (slot + 1) & mask
        return found

    def add(self, key: int, value: int) -> None:
        """Remember one more value (0 to 2^32 - 1) under the key (0 to 2^64 - 1)."""
        if 4 * self._entries >= 3 * len(self._keys):
            keys, values = self._keys, self._values
            self._resize(2 * len(keys))
            for old, kept in zip(keys, values, strict=True):
                if old:
                    self._insert(old, kept)
        self._insert(key or 1, value)

    def _insert(self, key: int, value: int) -> None:
        keys, mask = self._keys, self._mask
        slot = key & mask
        while keys[slot]:
            slot = (slot + 1) & mask
        keys[slot] = key
        self._values[slot] = value
        self._entries += 1

    def _resize(self, slots: int) -> None:
        self._keys, self._values = array("Q", [0]) * slots, array("I", [0]) * slots
        self._mask, self._entries = slots - 1, 0
