"""Rows -> input_ids and labels through the chat template, applied once to a conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.tokens.batch import IGNORE, TokenBatch
from posttrain.tokens.check import check_same_words, check_tokenizer, check_trained
from posttrain.tokens.show import show, show_rich
from posttrain.tokens.template import load_template, render, template_names
from posttrain.tokens.tokenizer import TOKENS_VERSION, Tokenizer

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "IGNORE",
    "TOKENS_VERSION",
    "TokenBatch",
    "Tokenized",
    "Tokenizer",
    "check_same_words",
    "check_tokenizer",
    "check_trained",
    "load_template",
    "render",
    "show",
    "show_rich",
    "stop_ids",
    "template_names",
    "tokenize",
]

BATCH = 1000


@dataclass
class Tokenized:
    """Tokens of a stage and what happened to its rows.

    Attributes:
        rows: the data set; columns depend on the kind, `source` is always there.
        counts: per source: rows, tokens, trained_tokens, truncated, cut_answers, without_eos.
        dropped: per source: reason -> rows.
    """

    rows: Dataset
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)


def tokenize(
    rows: Iterable[Row],
    kind: str,
    tokenizer: Tokenizer,
    progress: Callable[[int], None] = lambda n: None,
) -> Tokenized:
    """Tokenise rows in memory; count per source what was kept, cut and dropped, and why.

    Raises:
        DataError: nothing is left, a source has no trained token, EOS is never trained, or
            `truncation: error` met a row that is too long.
    """
    check_tokenizer(tokenizer.tokenizer, needs_template=kind != "text")
    counts: dict[str, Counter[str]] = {}
    dropped: dict[str, Counter[str]] = {}
    tables: list[pa.Table] = []
    remaining = iter(rows)
    while some := list(islice(remaining, BATCH)):
        batch = tokenizer.batch(kind, some)
        for source, count in batch.counts.items():
            counts.setdefault(source, Counter()).update(count)
        for i, reason in batch.reasons:
            dropped.setdefault(some[i].get("source") or "", Counter())[reason] += 1
        table = batch.table
        if kind == "problem":
            table = with_fields(table, [some[i] for i in batch.kept.tolist()])
        tables.append(table)
        progress(len(some))
    check_trained(sum(table.num_rows for table in tables), counts, dropped, kind)
    return Tokenized(to_dataset(tables), counts, dropped)


def with_fields(table: pa.Table, rows: list[Row]) -> pa.Table:
    """Fields of problems as they were given: reward functions in this process read them.

    Raises:
        DataError: a field that is text in one row and a list in another, say.
    """
    import pyarrow as pa

    for name in set(table.column_names) - {"prompt", "prompt_ids", "source"}:
        try:
            values: Any = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"the field {name!r} has values of different types: {error}") from error
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def to_dataset(tables: list[pa.Table]) -> Dataset:
    """One data set of all batches; a column that some batches lack is empty there."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise DataError(f"a field has values of different types: {error}") from error
    return Dataset(InMemoryTable(table))


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer of a chat model: EOS and the chat template's own end of a turn."""
    return Tokenizer(tokenizer, max_length=1).stop_ids
