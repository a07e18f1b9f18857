"""Sources + filters -> one shuffled list of rows, and a manifest that accounts for every row."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import DataError, VerifierError
from posttrain.filters import Filter, get_filters
from posttrain.formats import Row, to_row
from posttrain.recipe import Source
from posttrain.sources import Opened, open_source, source_name
from posttrain.sources.files import rename
from posttrain.verifiers import get_verifier

SHOWN = 5
SHOWN_LENGTH = 300  # a row's own content may be long, and messages quote it


@dataclass
class Mixture:
    """Rows of a stage in their shuffled order, and where they came from.

    Attributes:
        rows: normalised rows (see formats.py), each with its `source`.
        manifest: per source what was read, dropped by which reason, and taken; hash of the order.
    """

    rows: list[Row]
    manifest: dict[str, Any] = field(default_factory=dict)


def build_mixture(
    datasets: Sequence[Source | Mapping[str, Any]],
    kind: str = "conversation",
    *,
    seed: int = 42,
    filters: Sequence[Any] = (),
    bad_rows: str = "error",
    token_budget: int | None = None,
    count_tokens: Callable[[Row], int] | None = None,
    remap_verifier: Mapping[str, str] | None = None,
    opener: Callable[[Source, int], Opened] = open_source,
) -> Mixture:
    """Read, check, filter, draw and shuffle.

    Args:
        datasets: entries of `datasets:`.
        kind: `text`, `conversation`, `preference` or `problem`.
        seed: decides what is drawn and the order; the same everywhere.
        filters: filters applied to every row, by name.
        bad_rows: `error` stops at rows that cannot be read, `drop` counts them.
        token_budget: tokens that sources with a `weight` share, counted by `count_tokens`.
        remap_verifier: verifier names in the data -> names here.
        opener: how a source is opened; `--smoke` puts stand-ins here.

    Raises:
        DataError: a source or row that cannot be read, or nothing left.
    """
    sources = [s if isinstance(s, Source) else Source(**s) for s in datasets]
    keep, rows, entries = get_filters(filters), [], []
    total = sum(s.weight or 0 for s in sources)
    for i, source in enumerate(sources):
        rng = random.Random(f"{seed}/{i}/{source.path}/{source.name}/{source.split}")
        opened = opener(source, seed)
        read, dropped = read_rows(source, opened.rows, kind, keep, bad_rows, remap_verifier or {})
        if not read:
            why = (
                "; ".join(f"{n} rows: {reason}" for reason, n in dropped.most_common(3))
                or "it has no rows"
            )
            raise DataError(
                f"source {source.path!r} has no usable row ({why}); mend it or remove the source"
            )
        budget = token_budget * source.weight / total if token_budget and source.weight else None
        taken = draw(read, source, rng, budget, count_tokens)
        rows += taken
        entries.append(account(source, opened, read, dropped, taken))
    random.Random(f"{seed}/shuffle").shuffle(rows)
    order = hashlib.sha256()
    for row in rows:
        order.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    return Mixture(
        rows,
        {"seed": seed, "rows": len(rows), "sources": entries, "order_sha256": order.hexdigest()},
    )


def account(
    source: Source, opened: Opened, read: list[Row], dropped: Counter[str], taken: list[Row]
) -> dict[str, Any]:
    """What the manifest says of one source."""
    return {
        "source": source_name(source),
        "path": source.path,
        "name": source.name,
        "split": source.split,
        "revision": opened.revision,
        "sha256": opened.sha256,
        "rows_read": len(read) + sum(dropped.values()),
        "rows_taken": len(taken),
        "dropped": dict(dropped),
    }


def read_rows(
    source: Source,
    raw_rows: Iterable[Any],
    kind: str,
    keep: Sequence[Filter],
    bad_rows: str,
    remap: Mapping[str, str],
) -> tuple[list[Row], Counter[str]]:
    """Normalise and check every row of one source; count what is dropped by reason."""
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    bad: list[str] = []
    name = source_name(source)
    for number, raw in enumerate(raw_rows, 1):
        try:
            renamed = rename(raw, source.columns)
            if kind == "problem":
                renamed["verifier"] = (
                    source.verifier or renamed.get("verifier") or renamed.get("dataset")
                )
            row = to_row(kind, renamed)
            if kind == "problem":
                row["verifier"] = remap.get(row["verifier"], row["verifier"])
                get_verifier(row["verifier"]).check_ground_truth(row["ground_truth"])
        except (DataError, VerifierError) as error:
            dropped[without_value(error)] += 1
            bad.append(shorten(f"row {number}: {error}"))
            if bad_rows == "error" and len(bad) == SHOWN:
                break
            continue
        row["source"] = name
        reason = next((why for rule in keep if (why := rule(row))), None)
        if reason:
            dropped[reason] += 1
        else:
            rows.append(row)
    if bad and bad_rows == "error":
        listing = "\n".join(f"  {line}" for line in bad)
        raise DataError(
            f"source {source.path!r} has rows that cannot be used:\n{listing}\n"
            "  (rows are counted from 1) mend them, or set `bad_rows: drop` in the stage to leave"
            " them out and have them counted"
        )
    return rows, dropped


def without_value(error: Exception) -> str:
    """A reason that many rows share: what is wrong, without what this row holds."""
    return shorten(str(error).split(", got ")[0])


def shorten(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_LENGTH else line[: SHOWN_LENGTH - 3] + "..."


def draw(
    rows: Sequence[Row],
    source: Source,
    rng: random.Random,
    budget: float | None,
    count_tokens: Callable[[Row], int] | None,
) -> list[Row]:
    """Take what the entry asks for: a random share, a number, whole passes, or a token budget."""
    if source.fraction is not None:
        return rng.sample(rows, max(1, round(source.fraction * len(rows))))
    if source.num_samples is not None:
        return passes(rows, source.num_samples, rng)
    if source.repeat is not None:
        return passes(rows, round(source.repeat * len(rows)), rng)
    if budget is None:
        return list(rows)
    if count_tokens is None:
        raise DataError(
            f"source {source.path!r}: a `weight` needs a tokenizer to count tokens with"
        )
    taken, used = [], 0.0
    while used < budget:
        before = used
        for row in rng.sample(rows, len(rows)):
            taken.append(row)
            used += count_tokens(row)
            if used >= budget:
                break
        if used == before:
            raise DataError(
                f"source {source.path!r}: no row has a token within max_length, so its `weight`"
                " cannot be met; raise max_length or remove the source"
            )
    return taken


def passes(rows: Sequence[Row], number: int, rng: random.Random) -> list[Row]:
    """`number` rows: whole passes first, then a random part of one more."""
    whole, rest = divmod(number, len(rows))
    return list(rows) * whole + rng.sample(rows, rest)
