"""Groups of equal or nearly equal rows in a whole file, whatever their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from posttrain.filters.base import FIELDS, check_option, contents
from posttrain.filters.exact_duplicates import ExactDuplicates
from posttrain.filters.minhash import band_keys, choose_bands, reaches, shingles
from posttrain.formats import Row

if TYPE_CHECKING:
    from posttrain.filters.minhash import Shingles

MODES = ("near", "exact")


def dedup_file(
    rows: Iterable[Row], threshold: float = 0.7, mode: str = "near", fields: str = "all"
) -> tuple[list[int], list[list[int]]]:
    """Which rows to keep, and the groups of which only the first was kept.

    Args:
        rows: rows of any shape; they are read once and not kept.
        threshold: Jaccard similarity from which two rows are duplicates (`near` only).
        mode: `near`, or `exact`: equal but for the provenance.
        fields: what `near` compares: `all`, `prompt` or `answer`.

    Returns:
        0-based indices of the rows to keep, ascending; groups of two or more indices.

    Raises:
        ValueError: an unknown mode or field, a threshold outside (0, 1].
    """
    check_option("mode", mode, MODES)
    check_option("fields", fields, FIELDS)
    total = 0
    if mode == "exact":
        marks: dict[bytes, list[int]] = {}
        digest = ExactDuplicates().mark
        for total, row in enumerate(rows, start=1):
            marks.setdefault(digest(row), []).append(total - 1)
        groups = [group for group in marks.values() if len(group) > 1]
    else:
        sets = [shingles("\n".join(contents(row, fields))) for row in rows]
        total, groups = len(sets), group_sets(sets, threshold)
    dropped = {row for group in groups for row in group[1:]}
    return [row for row in range(total) if row not in dropped], groups


def duplicate_groups(
    texts: Iterable[str], threshold: float = 0.7, words: int = 5, num_perm: int = 128, seed: int = 1
) -> list[list[int]]:
    """Connected components of the texts whose shingles have this Jaccard similarity or more.

    The order of the texts changes their numbers, never who is grouped with whom. A chain holds
    together: its ends may be less alike than the threshold. Texts without words are in no group.

    Returns:
        Groups of two or more 0-based indices, each ascending, ordered by their first.
    """
    return group_sets([shingles(text, words) for text in texts], threshold, num_perm, seed)


def group_sets(
    sets: Sequence[Shingles], threshold: float, num_perm: int = 128, seed: int = 1
) -> list[list[int]]:
    """As `duplicate_groups`, of sets of shingles. Memory: the sets, 8 bytes per band of each."""
    import numpy as np

    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold}")
    bands = choose_bands(threshold, num_perm)
    groups = Groups(len(sets))
    first: dict[bytes, int] = {}
    for i, found in enumerate(sets):
        if len(found):
            groups.join(first.setdefault(found.tobytes(), i), i)
    unique = list(first.values())
    keys = np.empty((bands, len(unique)), np.uint64)
    for column, i in enumerate(unique):
        keys[:, column] = band_keys(sets[i], num_perm, bands, seed)
    for band in keys:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, edges):
            if len(bucket) > 1:
                _join_bucket([unique[c] for c in bucket.tolist()], sets, threshold, groups)
    return groups.members()


def _join_bucket(
    bucket: list[int], sets: Sequence[Shingles], threshold: float, groups: Groups
) -> None:
    for place, i in enumerate(bucket):
        for j in bucket[:place]:
            if groups.root(i) != groups.root(j) and reaches(sets[i], sets[j], threshold):
                groups.join(i, j)


class Groups:
    """Numbers 0 to n - 1 joined pair by pair (union-find); the root of a group is its least."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, i: int) -> int:
        """The least number joined with `i`."""
        while (parent := self._parent[i]) != i:
            self._parent[i] = self._parent[parent]
            i = parent
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of the groups of both."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low

    def members(self) -> list[list[int]]:
        """The groups of two or more, ascending."""
        found: dict[int, list[int]] = {}
        for i in range(len(self._parent)):
            found.setdefault(self.root(i), []).append(i)
        return [group for group in found.values() if len(group) > 1]
