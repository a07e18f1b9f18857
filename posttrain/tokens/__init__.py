"""Rows -> input_ids and labels through the chat template, applied once to a conversation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.tokens.spans import (
    IGNORE,
    answer_span,
    check_tokenizer,
    conversation_spans,
    load_template,
    mask,
    render,
    template_names,
    token_ranges,
)

__all__ = [
    "IGNORE",
    "Tokenized",
    "Tokenizer",
    "check_tokenizer",
    "load_template",
    "render",
    "show",
    "template_names",
    "tokenize",
]

BATCH = 1000


@dataclass
class Tokenized:
    """Tokens of a stage and what happened to its rows.

    Attributes:
        rows: the data set; columns depend on the kind, `source` is always there.
        counts: per source: rows, tokens, trained_tokens, truncated, without_eos.
        dropped: per source: reason -> rows.
    """

    rows: Dataset
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokenizer:
    """Turns rows of one kind into tokens.

    Attributes:
        tokenizer: a fast tokenizer with EOS and chat template.
        max_length: longest sequence in tokens.
        truncation: `truncate` | `drop` | `error` for longer ones.
        max_prompt_length: longest prompt of a problem; longer ones are dropped.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncation: str = "truncate"
    max_prompt_length: int | None = None

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Tokens and character ranges of each text. The template owns BOS: none is added here."""
        out = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            (ids, token_ranges(o))
            for ids, o in zip(out["input_ids"], out["offset_mapping"], strict=True)
        ]

    def fit(self, length: int) -> None:
        """Apply `truncation` to a sequence of `length` tokens: raises when the row must go."""
        if length > self.max_length and self.truncation != "truncate":
            raise DataError(f"longer than max_length {self.max_length}")

    def text(self, rows: Sequence[Row]) -> list[Row | DataError]:
        """Pretraining rows: every token is trained, EOS at the end."""
        out: list[Row | DataError] = []
        for ids, _ in self.encode([row["text"] for row in rows]):
            ids = [*ids, self.tokenizer.eos_token_id]
            try:
                self.fit(len(ids))
            except DataError as error:
                out.append(error)
                continue
            ids = ids[: self.max_length]
            out.append({"input_ids": ids, "labels": list(ids)})
        return out

    def conversation(self, rows: Sequence[Row]) -> list[Row | DataError]:
        """SFT rows: `input_ids`, `labels`."""
        return self.spanned(
            rows, lambda row: [conversation_spans(self.tokenizer, row["messages"])], self.finish
        )

    def finish(self, row: Row, encoded: list[tuple[list[int], list[int]]]) -> Row:
        (ids, labels), size = encoded[0], self.max_length
        self.fit(len(ids))
        if all(label == IGNORE for label in labels[1:size]):
            raise DataError("no trained token is left within max_length")
        return {"input_ids": ids[:size], "labels": labels[:size]}

    def preference(self, rows: Sequence[Row]) -> list[Row | DataError]:
        """Pairs: `prompt_ids` shared by both, `chosen_ids`, `rejected_ids` (trained whole)."""

        def sides(row: Row) -> list[tuple[str, list[tuple[int, int]]]]:
            before = render(self.tokenizer, row["prompt"], generation_prompt=True)
            out = []
            for side in ("chosen", "rejected"):
                if len(row[side]) != 1:
                    raise DataError("the two sides differ before their last turn")
                after = render(self.tokenizer, [*row["prompt"], *row[side]])
                start, end = answer_span(self.tokenizer, before, after)
                out.append((after[:end], [(start, end)]))
            return out

        return self.spanned(rows, sides, self.finish_pair)

    def finish_pair(self, row: Row, encoded: list[tuple[list[int], list[int]]]) -> Row:
        (chosen, chosen_labels), (rejected, rejected_labels) = encoded
        # a token that spans the header and the answer belongs to the answer
        limit = min(
            next((i for i, label in enumerate(labels) if label != IGNORE), len(labels))
            for labels in (chosen_labels, rejected_labels)
        )
        shared = 0
        while shared < limit and chosen[shared] == rejected[shared]:
            shared += 1
        self.fit(max(len(chosen), len(rejected)))
        size = self.max_length
        if shared >= size or shared == 0:
            raise DataError("no trained token is left within max_length")
        if chosen[:size] == rejected[:size]:
            raise DataError("chosen and rejected are the same tokens within max_length")
        return {
            "prompt_ids": chosen[:shared],
            "chosen_ids": chosen[shared:size],
            "rejected_ids": rejected[shared:size],
        }

    def problem(self, rows: Sequence[Row]) -> list[Row | DataError]:
        """Problems: `prompt_ids` up to the generation prompt; everything else is kept as it is."""

        def prompt(row: Row) -> list[tuple[str, list[tuple[int, int]]]]:
            return [(render(self.tokenizer, row["prompt"], generation_prompt=True), [])]

        def finish(row: Row, encoded: list[tuple[list[int], list[int]]]) -> Row:
            ids = encoded[0][0]
            if self.max_prompt_length is not None and len(ids) > self.max_prompt_length:
                raise DataError(f"prompt longer than max_prompt_length {self.max_prompt_length}")
            keep = {name: value for name, value in row.items() if name != "source"}
            return {
                **keep,
                "prompt_ids": ids,
                "prompt": json.dumps(row["prompt"], ensure_ascii=False),
            }

        return self.spanned(rows, prompt, finish)

    def spanned(
        self,
        rows: Sequence[Row],
        texts_of: Callable[[Row], list[tuple[str, list[tuple[int, int]]]]],
        finish: Callable[[Row, list[tuple[list[int], list[int]]]], Row],
    ) -> list[Row | DataError]:
        """Render, encode in one batch, mask, finish. An unusable row becomes its reason."""
        out: list[Row | DataError] = []
        texts: list[tuple[str, list[tuple[int, int]]]] = []
        owners: list[int] = []
        for i, row in enumerate(rows):
            out.append({})
            try:
                parts = texts_of(row)
            except DataError as error:
                out[i] = error
                continue
            texts.extend(parts)
            owners.extend([i] * len(parts))
        encoded: dict[int, list[tuple[list[int], list[int]]]] = {}
        for owner, (_, spans), (ids, ranges) in zip(
            owners, texts, self.encode([t for t, _ in texts]) if texts else [], strict=True
        ):
            encoded.setdefault(owner, []).append((ids, mask(ids, ranges, spans)))
        for i, parts_of_row in encoded.items():
            try:
                out[i] = finish(rows[i], parts_of_row)
            except DataError as error:
                out[i] = error
        return out


def tokenize(
    rows: Iterable[Row],
    kind: str,
    tokenizer: Tokenizer,
    progress: Callable[[int], None] = lambda n: None,
) -> Tokenized:
    """Tokenise every row of a stage; count per source what was kept, cut and dropped, and why.

    Raises:
        DataError: nothing is left, a source has no trained token, EOS is never trained, or
            `truncation: error` met a row that is too long.
    """
    check_tokenizer(tokenizer.tokenizer, needs_template=kind != "text")
    result = Tokenized(Dataset.from_dict({}))
    columns: dict[str, list[Any]] = {}

    def take(batch: list[Row]) -> None:
        for row, out in zip(batch, getattr(tokenizer, kind)(batch), strict=True):
            source = row.get("source") or ""
            counts = result.counts.setdefault(source, Counter())
            if isinstance(out, DataError):
                if tokenizer.truncation == "error" and "longer than max_length" in str(out):
                    raise DataError(
                        f"source {source!r}: a row is {out}; raise max_length "
                        "or set truncation: truncate"
                    )
                result.dropped.setdefault(source, Counter())[str(out)] += 1
                continue
            done = len(columns.get("source", ()))
            for name, value in (*out.items(), ("source", source)):
                columns.setdefault(name, [None] * done).append(value)
            for values in columns.values():  # a column that only other rows have
                values.extend([None] * (done + 1 - len(values)))
            counts.update(count(out, tokenizer))
        progress(len(batch))

    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            take(batch)
            batch = []
    if batch:
        take(batch)
    result.rows = Dataset.from_dict(columns)
    check_trained(result, kind)
    return result


def count(row: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, int]:
    """Rows, tokens, trained tokens, truncations and missing EOS of one tokenised row."""
    if "input_ids" in row:
        sides, tokens = [(row["input_ids"], row["labels"])], len(row["input_ids"])
    elif "chosen_ids" in row:
        sides = [(row[s], row[s]) for s in ("chosen_ids", "rejected_ids")]
        tokens = len(row["prompt_ids"]) + sum(len(s) for s, _ in sides)
    else:
        return {"rows": 1, "tokens": len(row["prompt_ids"])}
    prompt = len(row.get("prompt_ids", ()))
    eos = tokenizer.tokenizer.eos_token_id
    return {
        "rows": 1,
        "tokens": tokens,
        "trained_tokens": sum(label != IGNORE for _, labels in sides for label in labels),
        "truncated": sum(
            len(ids) + prompt >= tokenizer.max_length and ids[-1] != eos for ids, _ in sides
        ),
        "without_eos": sum(eos not in labels for _, labels in sides),
    }


def check_trained(result: Tokenized, kind: str) -> None:
    """Stop a run that would learn nothing, or never learn to stop."""
    reasons: Counter[str] = sum(result.dropped.values(), Counter())
    if not len(result.rows):
        why = (
            "; ".join(f"{n} rows: {reason}" for reason, n in reasons.most_common(3))
            or "the sources are empty"
        )
        raise DataError(f"no row is left to train on ({why})")
    if kind == "problem":
        return
    for source, counts in result.counts.items():
        if not counts["trained_tokens"]:
            why = "; ".join(
                f"{n} rows: {reason}"
                for reason, n in result.dropped.get(source, Counter()).most_common(3)
            )
            raise DataError(f"source {source!r}: no token is trained ({why})")
    if all(counts["without_eos"] >= counts["rows"] for counts in result.counts.values()):
        raise DataError(
            "EOS is not trained in any row, so the model would never learn to stop: the chat "
            "template must end each answer with the tokenizer's EOS, and max_length must leave "
            "room for it"
        )


def show(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenised row as text, its trained tokens between ⟦ and ⟧."""
    if "input_ids" in row:
        parts = list(zip(row["input_ids"], row["labels"], strict=True))
    elif "chosen_ids" in row:
        prompt = [(t, IGNORE) for t in row["prompt_ids"]]
        chosen = show({"input_ids": row["chosen_ids"], "labels": row["chosen_ids"]}, tokenizer)
        rejected = show(
            {"input_ids": row["rejected_ids"], "labels": row["rejected_ids"]}, tokenizer
        )
        shared = tokenizer.decode([t for t, _ in prompt])
        return f"{shared}\n--- chosen\n{chosen}\n--- rejected\n{rejected}"
    else:
        truth = f"--- ground truth ({row['verifier']})\n{row['ground_truth']}"
        return f"{tokenizer.decode(row['prompt_ids'])}\n{truth}"
    text: list[str] = []
    run: list[int] = []
    trained = False
    for token, label in [*parts, (None, None)]:
        now = label is not None and label != IGNORE
        if run and (token is None or now != trained):
            decoded = str(tokenizer.decode(run))
            text.append(f"⟦{decoded}⟧" if trained else decoded)
            run = []
        trained = now
        run.append(token)
    return "".join(text)
