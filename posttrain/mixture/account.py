"""What the manifest says: every row of every source, kept or dropped, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from posttrain.decontamination import EvalSet
from posttrain.errors import DataError
from posttrain.mixture.guard import Guard
from posttrain.mixture.part import Part
from posttrain.store import key_of

DECONTAMINATE = "decontaminate"
MOST = 0.5  # share of matching rows above which a source is not cleaned by dropping them


def account(part: Part) -> dict[str, Any]:
    """What the manifest says of one source."""
    source, notes = part.source, part.store.chunks
    steps: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for note in notes:
        for step, reason, number in note["dropped"]:
            steps[step] += number
            reasons[reason] += number
    for step, reason in part.dropped.values():
        steps[step] += 1
        reasons[reason] += 1
    read = sum(note["read"] for note in notes)
    return {
        "source": part.name,
        "path": source.path,
        "name": source.name,
        "split": source.split,
        "revision": part.opened.revision,
        "sha256": part.opened.sha256,
        "license": source.license or part.opened.license,
        "filters": [*part.plan.filters],
        "rows_sha256": key_of(chunks=[note["sha256"] for note in notes]),
        "rows_read": read,
        "rows_kept": part.store.rows - len(part.dropped),
        "rows_held_out": len(part.held_out),
        "rows_taken": len(part.taken),
        "steps": steps_of(part, read, steps),
        "dropped": dict(reasons),
        "flagged": total(note["flagged"] for note in notes),
        "repairs": total(note["repairs"] for note in notes),
    }


def steps_of(part: Part, read: int, dropped: Counter[str]) -> list[dict[str, Any]]:
    """Rows before and after every step, in the order of the steps."""
    names = [spec if isinstance(spec, str) else spec["name"] for spec in part.plan.filters]
    order = ["read", *(["format"] if dropped["format"] else []), *dict.fromkeys(names)]
    if part.plan.finder is not None:
        order.append(DECONTAMINATE)
    steps, rows = [], read
    for step in order:
        steps.append({"step": step, "rows_before": rows, "rows_after": rows - dropped[step]})
        rows -= dropped[step]
    if len(part.held_out):
        after = rows - len(part.held_out)
        steps.append({"step": "hold_out", "rows_before": rows, "rows_after": after})
        rows = after
    steps.append({"step": "draw", "rows_before": rows, "rows_after": len(part.taken)})
    return steps


def total(counts: Any) -> dict[str, int]:
    """Counts added up."""
    out: Counter[str] = Counter()
    for count in counts:
        out.update(count)
    return dict(out)


def contamination(parts: Sequence[Part], guard: Guard | None) -> list[dict[str, Any]]:
    """Per (source, evaluation set): how much of either the other holds; rows are marked to drop.

    The table is the paper's (Tülu 3, arXiv:2411.15124, Tables 8 and 37).

    Raises:
        DataError: a source is contaminated and the action is `error`.
    """
    table: list[dict[str, Any]] = []
    for part in parts if guard is not None else ():
        assert guard is not None
        part.matches = matches_of(part)
        sets, action = guard.finder.eval_sets, guard.settings.action
        rates = [rate(part, sets[i], i) for i in range(len(sets))]
        for entry in rates:
            entry["contaminated"] = entry["eval_share"] > guard.settings.dataset_threshold
        table += rates
        bad = [entry for entry in rates if entry["contaminated"]]
        if bad and action == "error":
            raise too_much(part, max(bad, key=lambda entry: float(entry["eval_share"])), guard)
        if bad and action == "drop_set":
            reason = f"the source holds too much of {bad[0]['eval_set']}"
            part.dropped = {row: (DECONTAMINATE, reason) for row in range(part.store.rows)}
        if action == "report" or kept_whole(part, rates):
            continue
        for row, eval_set, _, _ in part.matches:
            reason = f"it holds a prompt of {sets[eval_set].name}"
            part.dropped.setdefault(row, (DECONTAMINATE, reason))
    return table


def kept_whole(part: Part, rates: Sequence[dict[str, Any]]) -> bool:
    """Whether most rows of a source match, which is then left as it is and told of loudly.

    Such a source is no training set with a leak (the worst of Tülu 3's lost 11.3% of its rows) but
    the evaluation set itself, or rows that share its wording by construction. Dropping the most of
    it would clean nothing, and someone has to decide.
    """
    matched = len({match[0] for match in part.matches})
    whole = matched > MOST * part.store.rows
    for entry in rates if whole else ():
        entry["kept_whole"] = bool(entry["train_rows"])
    return whole


def too_much(part: Part, worst: dict[str, Any], guard: Guard) -> DataError:
    """The error for a source that is contaminated."""
    return DataError(
        f"source {part.source.path!r} holds {worst['eval_share']:.1%} of the evaluation set"
        f" {worst['eval_set']!r} (allowed: {guard.settings.dataset_threshold:.1%}); remove the"
        " source, or set `decontaminate: {action: drop_rows}` to drop its matching rows"
    )


def matches_of(part: Part) -> list[tuple[int, int, int, float]]:
    """All matches of a source: (row of the store, evaluation set, its row, overlap)."""
    out, start = [], 0
    for note in part.store.chunks:
        out += [(start + row, *rest) for row, *rest in note["matches"]]
        start += note["rows"]
    return out


def rate(part: Part, one: EvalSet, number: int) -> dict[str, Any]:
    """How much of an evaluation set a source holds, and the other way round."""
    mine = [m for m in part.matches if m[1] == number]
    held, size, rows = len({m[2] for m in mine}), len(one.prompts), len({m[0] for m in mine})
    return {
        "source": part.name,
        "eval_set": one.name,
        "eval_rows": held,
        "eval_share": held / size if size else 0.0,
        "train_rows": rows,
        "train_share": rows / part.store.rows if part.store.rows else 0.0,
    }
