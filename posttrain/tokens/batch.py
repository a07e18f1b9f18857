"""Rows of one kind -> Arrow columns of tokens, with an account of every row.

    text, conversation   input_ids, labels
    preference           prompt_ids (shared by both), chosen_ids, rejected_ids (trained whole),
                         margin (float64, null where a row has none) if any row has one
    problem              prompt_ids, prompt (JSON text), every other field of the row

All token columns are list<int32>; `source` is text. The work is done on flat arrays of a whole
batch: nothing here runs once per token.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.tokens.coder import Encoded, Ints, check_text
from posttrain.tokens.spans import Rendered, conversation_spans, pair_spans
from posttrain.tokens.template import plain_turns

if TYPE_CHECKING:
    from posttrain.tokens.tokenizer import Tokenizer

IGNORE = -100
LOST = "no trained token is left within max_length"
Columns = dict[str, pa.Array]
Reasons = dict[int, str]


@dataclass
class TokenBatch:
    """Tokens of some rows.

    Attributes:
        table: the columns of the kind, and `source`.
        kept: `[table rows]` which of the rows given each row of the table is.
        reasons: the rows that cannot be used: their index and why.
        counts: per source: rows, tokens, trained_tokens; `truncated`, sequences cut at max_length;
            `cut_answers`, those cut inside an answer, which then has no end; `without_eos`,
            sequences that train no end of an answer at all.
        amounts: the same per row of the table.
        sizes: `[rows given]` tokens of every row before it was cut or left out (a pair's prompt
            counts once); 0 where a row cannot be rendered.
    """

    table: pa.Table
    kept: Ints
    reasons: list[tuple[int, str]]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    amounts: dict[str, Ints] = field(default_factory=dict)
    sizes: Ints = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass
class Work:
    """Rendered rows, encoded: `parts` texts for each of the rows in `kept`."""

    kept: list[int]
    encoded: Encoded
    reasons: Reasons


def prepare(
    tokenizer: Tokenizer, rows: Sequence[Row], texts_of: Callable[[Row], list[Rendered]]
) -> Work:
    """Render every row, then encode all texts in one call. An unusable row becomes its reason."""
    kept: list[int] = []
    texts: list[Rendered] = []
    reasons: Reasons = {}
    for i, row in enumerate(rows):
        try:
            parts = texts_of(row)
            for text, _ in parts:
                check_text(text)
        except DataError as error:
            reasons[i] = str(error)
            continue
        texts += parts
        kept.append(i)
    encoded = tokenizer.coder.encode([t for t, _ in texts], [s for _, s in texts])
    return Work(kept, encoded, reasons)


def text(tokenizer: Tokenizer, rows: Sequence[Row]) -> TokenBatch:
    """Pretraining rows: every token is trained, EOS at the end."""
    work = prepare(tokenizer, rows, lambda row: [(row["text"], [])])
    ids, bounds = work.encoded.ids, work.encoded.bounds
    ids = np.insert(ids, bounds[1:], tokenizer.eos_id)
    bounds = bounds + np.arange(len(bounds))
    return sequences(tokenizer, rows, work, ids, bounds, np.ones(len(ids), np.bool_))


def conversation(tokenizer: Tokenizer, rows: Sequence[Row]) -> TokenBatch:
    """SFT rows: what is trained is where the spans are."""

    def texts_of(row: Row) -> list[Rendered]:
        return [
            conversation_spans(
                tokenizer.template,
                tokenizer.marks,
                row["messages"],
                row.get("tools"),
                last_turn_only=tokenizer.last_turn_only,
                train_on_prompt=tokenizer.train_on_prompt,
            )
        ]

    work = prepare(tokenizer, rows, texts_of)
    encoded = work.encoded
    return sequences(tokenizer, rows, work, encoded.ids, encoded.bounds, encoded.inside())


def sequences(
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    work: Work,
    ids: NDArray[np.int32],
    bounds: Ints,
    trained: NDArray[np.bool_],
) -> TokenBatch:
    """Cut to `max_length`, refuse rows that train nothing, and lay out `input_ids` and `labels`."""
    size, begins, lengths = tokenizer.max_length, bounds[:-1], np.diff(bounds)
    ends = begins + np.minimum(lengths, size)
    cut = lengths > size
    targets = between(trained, np.minimum(begins + 1, ends), ends)  # the first token is no target
    fits = tokenizer.fit(work, cut, rows)
    fine = fits & (targets > 0)
    work.reasons |= {work.kept[i]: LOST for i in np.flatnonzero(fits & (targets == 0))}
    chosen = np.repeat(fine, lengths) & (np.arange(len(ids)) < np.repeat(ends, lengths))
    stops = np.isin(ids, tokenizer.stop_ids) & trained
    final = np.maximum(ends - 1, 0)
    amounts = {
        "tokens": ends - begins,
        "trained_tokens": between(trained, begins, ends),
        "truncated": cut,
        "cut_answers": cut & (trained & ~stops)[final] if len(ids) else cut,
        "without_eos": between(stops, begins, ends) == 0,
    }
    labels = np.where(trained, ids, np.int32(IGNORE))[chosen]
    new_bounds = np.concatenate([[0], np.cumsum((ends - begins)[fine])])
    columns = {
        "input_ids": ragged(ids[chosen], new_bounds),
        "labels": ragged(labels, new_bounds),
    }
    return finish(rows, work, fine, columns, amounts, lengths)


def preference(tokenizer: Tokenizer, rows: Sequence[Row]) -> TokenBatch:
    """Pairs: the tokens that both sides share before either answer begins are the prompt."""
    sides = ("chosen", "rejected")
    work = prepare(
        tokenizer, rows, lambda row: pair_spans(tokenizer.template, tokenizer.marks, row, sides)
    )
    ids, size, encoded = work.encoded.ids, tokenizer.max_length, work.encoded
    lengths = np.diff(encoded.bounds).reshape(-1, 2)
    # a token that spans the header and the answer belongs to the answer
    answers = np.minimum(encoded.first, encoded.bounds[1:]) - encoded.bounds[:-1]
    limits = answers.reshape(-1, 2).min(1, initial=1 << 40)
    begins = encoded.bounds[:-1].reshape(-1, 2)
    fits = tokenizer.fit(work, lengths.max(1, initial=0) > size, rows)
    fine = fits.copy()
    kept = np.minimum(lengths, size)
    shared = np.zeros(len(lengths), np.int64)
    for i, ((a, b), limit) in enumerate(zip(begins.tolist(), limits.tolist(), strict=True)):
        differ = np.flatnonzero(ids[a : a + limit] != ids[b : b + limit])
        shared[i] = differ[0] if len(differ) else limit
        if not fits[i]:
            continue
        if not 0 < shared[i] < size:
            why = LOST
        elif np.array_equal(ids[a : a + kept[i, 0]], ids[b : b + kept[i, 1]]):
            why = "chosen and rejected are the same tokens within max_length"
        else:
            continue
        fine[i] = False
        work.reasons[work.kept[i]] = why
    sizes = lengths.sum(1) - shared
    shared, kept, begins = shared[fine], kept[fine], begins[fine]
    tops = begins + kept
    columns = {
        "prompt_ids": cut_out(ids, begins[:, 0], begins[:, 0] + shared),
        "chosen_ids": cut_out(ids, begins[:, 0] + shared, tops[:, 0]),
        "rejected_ids": cut_out(ids, begins[:, 1] + shared, tops[:, 1]),
    }
    margins = [rows[i].get("margin") for i in np.asarray(work.kept, np.int64)[fine].tolist()]
    if any(margin is not None for margin in margins):
        columns["margin"] = pa.array(margins, pa.float64())
    stops = np.isin(ids, tokenizer.stop_ids)
    ended = between(stops, begins + shared[:, None], tops) > 0
    cut = lengths[fine] > size
    trained = (kept - shared[:, None]).sum(1)
    open_ended = cut & ~stops[tops - 1]
    amounts = {
        "tokens": shared + trained,
        "trained_tokens": trained,
        "truncated": cut.sum(1),
        "cut_answers": open_ended.sum(1),
        "without_eos": (~ended).sum(1),
    }
    return finish(rows, work, fine, columns, amounts, sizes, whole=False)


def problem(tokenizer: Tokenizer, rows: Sequence[Row]) -> TokenBatch:
    """Problems: tokens up to the generation prompt; every other field is kept.

    A field that is not text is kept as JSON text: batches of any rows then have the same columns.
    """

    def texts_of(row: Row) -> list[Rendered]:
        turns = plain_turns(row["prompt"])
        for value in row.values():
            if isinstance(value, str):
                check_text(value)
        return [(tokenizer.template.render(turns, row.get("tools"), generation_prompt=True), [])]

    work = prepare(tokenizer, rows, texts_of)
    bounds, limit = work.encoded.bounds, tokenizer.max_prompt_length
    lengths = np.diff(bounds)
    fine = lengths <= (limit if limit is not None else lengths)
    for i in np.flatnonzero(~fine):
        work.reasons[work.kept[i]] = f"prompt longer than max_prompt_length {limit}"
    mine = [rows[i] for i, ok in zip(work.kept, fine, strict=True) if ok]
    names = dict.fromkeys(name for row in mine for name in row)
    columns = {
        name: pa.array([as_text(row.get(name)) for row in mine], pa.string())
        for name in ("prompt", *names)
        if name not in ("source", "prompt_ids")
    }
    columns |= {"prompt_ids": cut_out(work.encoded.ids, bounds[:-1][fine], bounds[1:][fine])}
    return finish(rows, work, fine, columns, {"tokens": lengths}, lengths)


KINDS: dict[str, Callable[[Tokenizer, Sequence[Row]], TokenBatch]] = {
    "text": text,
    "conversation": conversation,
    "preference": preference,
    "problem": problem,
}


def as_text(value: Any) -> str | None:
    """Text as it is, anything else as JSON, nothing as nothing."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def between(flags: NDArray[np.bool_], begins: Ints, ends: Ints) -> Ints:
    """How many flags are set from each begin to its end."""
    sums = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(sums[ends] - sums[begins], np.int64)


def ragged(values: NDArray[np.int32], bounds: Ints) -> pa.Array:
    """A list<int32> column."""
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values, pa.int32()))


def cut_out(ids: NDArray[np.int32], begins: Ints, ends: Ints) -> pa.Array:
    """A list<int32> column of slices of `ids`."""
    parts = [ids[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
    values = np.concatenate(parts) if parts else ids[:0]
    return ragged(values, np.concatenate([[0], np.cumsum(ends - begins)]))


def finish(
    rows: Sequence[Row],
    work: Work,
    fine: NDArray[np.bool_],
    columns: Columns,
    amounts: dict[str, NDArray[Any]],
    sizes: Ints,
    whole: bool = True,
) -> TokenBatch:
    """The table, and what it holds per source.

    Args:
        fine: `[kept]` which of the rendered rows are usable.
        amounts: per counter `[kept]` numbers, or only those of the usable rows (`whole=False`).
        sizes: `[kept]` tokens of the rendered rows before anything was cut.
    """
    kept = np.asarray(work.kept, np.int64)[fine]
    sources = [rows[i].get("source") or "" for i in kept.tolist()]
    names = list(dict.fromkeys(sources))
    code = np.array([names.index(source) for source in sources], np.int64)
    counts = {row.get("source") or "": Counter[str]() for row in rows}
    amounts = {k: v[fine] if whole else v for k, v in amounts.items()}
    amounts["rows"] = np.ones(len(kept), np.int64)
    for name, numbers in amounts.items():
        sums = np.bincount(code, numbers.astype(np.float64), len(names))
        for source, total in zip(names, sums.tolist(), strict=True):
            counts[source][name] = int(total)
    table = pa.table({**columns, "source": pa.array(sources, pa.string())})
    every = np.zeros(len(rows), np.int64)
    every[work.kept] = sizes
    return TokenBatch(table, kept, sorted(work.reasons.items()), counts, amounts, every)
