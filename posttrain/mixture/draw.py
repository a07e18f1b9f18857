"""How many rows each source gives, and which: indices only, the same everywhere for a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posttrain.errors import DataError, build
from posttrain.recipe import Source

Indices = np.ndarray  # int32: memory counts, and a source has fewer than 2**31 rows


@dataclass(frozen=True)
class Proportional:
    """Examples-proportional mixing with a cap: a source of n rows counts as min(n, cap).

    T0 (arXiv:2110.08207, §5: datasets above 500,000 rows count as 500,000) and FLAN
    (arXiv:2109.01652, §2.3: cap 3,000). T5 (arXiv:1910.10683, §3.5.2) gives the formula.

    Attributes:
        cap: rows above which a source counts no more; `None`: plain proportions.
        num_samples: rows in all; default: the capped sizes' sum, so that none repeats.
    """

    cap: int | None = None
    num_samples: int | None = None

    def shares(self, sizes: Sequence[int]) -> list[float]:
        """The weight of each source."""
        return [float(min(n, self.cap or n)) for n in sizes]

    def total(self, sizes: Sequence[int]) -> int:
        """Rows in all."""
        return self.num_samples or int(sum(self.shares(sizes)))


@dataclass(frozen=True)
class Temperature:
    """Temperature mixing: a source of n rows weighs min(n, cap) ** (1 / temperature).

    T5 (arXiv:1910.10683, §3.5.2); LIMA (arXiv:2305.11206) draws its communities with 3. At 1 it is
    proportional; the higher, the nearer to equal shares.

    Attributes:
        temperature: above 0.
        cap: as in `proportional`.
        num_samples: rows in all; default: as many as there are.
    """

    temperature: float = 2.0
    cap: int | None = None
    num_samples: int | None = None

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def shares(self, sizes: Sequence[int]) -> list[float]:
        """The weight of each source."""
        return [min(n, self.cap or n) ** (1 / self.temperature) for n in sizes]

    def total(self, sizes: Sequence[int]) -> int:
        """Rows in all."""
        return self.num_samples or sum(sizes)


MIXINGS = {"proportional": Proportional, "temperature": Temperature}


def get_mixing(spec: Any) -> Proportional | Temperature:
    """The mixing that a recipe names.

    Raises:
        RecipeError: an unknown name or option, or a value that it refuses.
    """
    made = build("mixing", MIXINGS, spec)
    for name in ("cap", "num_samples"):
        value = getattr(made, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            build("mixing", {"": dict}, {"name": f"{name}: {value!r} is no positive number"})
    return made


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """`total` rows in proportion to shares, each within one row of exact (largest remainders)."""
    whole = sum(shares)
    exact = [total * share / whole for share in shares]
    counts = [int(e) for e in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_rest[: total - sum(counts)]:
        counts[i] += 1
    return counts


def hold_out(rows: Indices, fraction: float | None, rng: random.Random) -> tuple[Indices, Indices]:
    """Rows to train on, and those that are held out, each in their order."""
    if fraction is None:
        return rows, rows[:0]
    if len(rows) < 2:
        raise DataError("one row cannot be split; give the source more rows or no eval_fraction")
    number = min(max(1, round(fraction * len(rows))), len(rows) - 1)
    chosen = np.zeros(len(rows), bool)
    chosen[rng.sample(range(len(rows)), number)] = True
    return rows[~chosen], rows[chosen]


def draw(
    rows: Indices,
    source: Source,
    rng: random.Random,
    count: int | None,
    budget: float | None,
    lengths: Callable[[], Indices] | None,
) -> Indices:
    """Take what the entry asks for: a random share, a number, whole passes, or a token budget.

    Args:
        rows: indices of the rows there are.
        count: rows that the stage's `mixing` gives this source.
        budget: tokens to reach, counted by `lengths()` (`[len(rows)]` tokens per row).
    """
    if count is not None:
        return passes(rows, count, rng)
    if source.fraction is not None:
        return pick(rows, max(1, round(source.fraction * len(rows))), rng)
    if source.num_samples is not None:
        return passes(rows, source.num_samples, rng)
    if source.repeat is not None:
        return passes(rows, round(source.repeat * len(rows)), rng)
    if budget is None:
        return rows
    if lengths is None:
        raise DataError(
            f"source {source.path!r}: a `weight` needs a tokenizer to count tokens with"
        )
    return up_to(rows, lengths(), budget, rng, source)


def up_to(
    rows: Indices, lengths: Indices, budget: float, rng: random.Random, source: Source
) -> Indices:
    """Random passes until the budget is reached; the row that reaches it is the last."""
    if not lengths.sum():
        raise DataError(
            f"source {source.path!r}: no row has a token within max_length, so its `weight`"
            " cannot be met; raise max_length or remove the source"
        )
    parts, used = [], 0.0
    while used < budget:
        order = np.array(rng.sample(range(len(rows)), len(rows)), np.int64)
        reached = used + np.cumsum(lengths[order])
        end = int(np.searchsorted(reached, budget)) + 1
        parts.append(rows[order[:end]])
        used = float(reached[min(end, len(rows)) - 1])
    return np.concatenate(parts)


def passes(rows: Indices, number: int, rng: random.Random) -> Indices:
    """`number` rows: whole passes first, then a random part of one more."""
    whole, rest = divmod(number, len(rows))
    return np.concatenate([np.tile(rows, whole), pick(rows, rest, rng)])


def pick(rows: Indices, number: int, rng: random.Random) -> Indices:
    """`number` different rows in random order."""
    return rows[np.array(rng.sample(range(len(rows)), number), np.int64)]


def shuffle(number: int, rng: random.Random) -> Indices:
    """A random order of `number` things: 4 bytes each, where a list of ints would take 36."""
    order = np.arange(number, dtype=np.int32)
    rng.shuffle(order)  # type: ignore[arg-type]
    return order


def counts_of(mixing: Mapping[str, Any] | None, sizes: Sequence[int]) -> list[int | None]:
    """Rows that `mixing` gives each source; `None`s without it."""
    if mixing is None:
        return [None] * len(sizes)
    made = get_mixing(mixing)
    return list(apportion(made.shares(sizes), made.total(sizes)))
