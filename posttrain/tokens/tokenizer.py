"""How the rows of a stage become tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posttrain.errors import DataError
from posttrain.formats import Row
from posttrain.tokens.batch import KINDS, TokenBatch, Work
from posttrain.tokens.coder import Coder
from posttrain.tokens.spans import Marks, find_marks
from posttrain.tokens.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS_VERSION = 1  # raise it when the same rows become other tokens or labels
RULES = ("truncate", "drop", "error")


@dataclass(frozen=True)
class Tokenizer:
    """Turns rows of one kind into tokens.

    Pickled, it leaves the transformers tokenizer behind (`tokenizer` is `None` afterwards) and
    takes only what `batch` needs: a process that receives it does not import transformers.

    Attributes:
        tokenizer: a fast tokenizer with EOS and, but for plain text, a chat template.
        max_length: longest sequence in tokens.
        truncation: for longer ones: `truncate` cuts at the end and never puts an EOS there, `drop`
            leaves the row out, `error` stops.
        max_prompt_length: longest prompt of a problem; longer ones are dropped.
        last_turn_only: train only the last answer of a conversation.
        train_on_prompt: train every token of a conversation, but for turns that are never trained:
            tool outputs and those with `train: false`.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncation: str = "truncate"
    max_prompt_length: int | None = None
    last_turn_only: bool = False
    train_on_prompt: bool = False

    def __post_init__(self) -> None:
        if self.truncation not in RULES:
            raise DataError(f"truncation must be one of {', '.join(RULES)}, got {self.truncation}")
        if self.last_turn_only and self.train_on_prompt:
            raise DataError("last_turn_only and train_on_prompt contradict each other; keep one")

    # --- what the tokenizer says of itself --------------------------------------------------------

    @cached_property
    def coder(self) -> Coder:
        """Text -> token ids."""
        return Coder.of(self.tokenizer)

    @cached_property
    def template(self) -> ChatTemplate:
        """Messages -> text."""
        return ChatTemplate.of(self.tokenizer)

    @cached_property
    def eos(self) -> tuple[str, int]:
        """EOS as text and as a token."""
        return str(self.tokenizer.eos_token), int(self.tokenizer.eos_token_id)

    @property
    def eos_id(self) -> int:
        return self.eos[1]

    @cached_property
    def special(self) -> dict[str, int]:
        """Texts that are one token each, wherever they stand."""
        added = self.coder.backend.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.content.strip()}

    @cached_property
    def marks(self) -> Marks:
        """What the template writes around an answer."""
        return find_marks(self.template, self.eos[0], self.special)

    @cached_property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer: EOS, and the template's own end of a turn if it is another.

        A model trained on these rows stops with one of them, so generation must stop at each.
        """
        ids = {self.eos_id}
        if self.has_template:
            last = [i for token, i in self.special.items() if self.marks.end.endswith(token)]
            ids.update(last)
        return sorted(ids)

    @cached_property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    # --- tokens -----------------------------------------------------------------------------------

    def batch(self, kind: str, rows: Sequence[Row]) -> TokenBatch:
        """Tokens of rows of one kind: `text`, `conversation`, `preference` or `problem`.

        Raises:
            DataError: `truncation: error` met a row that is too long.
        """
        return KINDS[kind](self, rows)

    def fit(self, work: Work, long: NDArray[np.bool_], rows: Sequence[Row]) -> NDArray[np.bool_]:
        """Apply `truncation` to rows of which some are too `long`: which of them go on.

        Raises:
            DataError: `truncation: error`.
        """
        if self.truncation == "truncate":
            return np.ones(len(long), np.bool_)
        for i in np.flatnonzero(long):
            why = f"longer than max_length {self.max_length}"
            if self.truncation == "error":
                source = rows[work.kept[i]].get("source") or ""
                raise DataError(
                    f"source {source!r}: a row is {why}; raise max_length "
                    "or set truncation: truncate"
                )
            work.reasons[work.kept[i]] = why
        return ~long

    def each(self, kind: str, rows: Sequence[Row]) -> list[Row | DataError]:
        """The same row by row, for a few rows at hand: columns by name, or why it was dropped."""
        batch = self.batch(kind, rows)
        out: list[Row | DataError] = [{} for _ in rows]
        for i, reason in batch.reasons:
            out[i] = DataError(reason)
        for i, row in zip(batch.kept.tolist(), batch.table.to_pylist(), strict=True):
            del row["source"]
            out[i] = row
        return out

    def conversation(self, rows: Sequence[Row]) -> list[Row | DataError]:
        return self.each("conversation", rows)

    def preference(self, rows: Sequence[Row]) -> list[Row | DataError]:
        return self.each("preference", rows)

    def problem(self, rows: Sequence[Row]) -> list[Row | DataError]:
        return self.each("problem", rows)

    def text(self, rows: Sequence[Row]) -> list[Row | DataError]:
        return self.each("text", rows)

    # --- identity ---------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides which tokens and labels rows become."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tokenizer"}
        parts = {
            "version": TOKENS_VERSION,
            "backend": self.coder.backend.to_str(),
            "split_special_tokens": self.coder.backend.encode_special_tokens,
            "eos": self.eos,
            "template": self.template.text if self.has_template else None,
            "special_tokens": self.template.special_tokens if self.has_template else None,
            "options": options,
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        state |= {"coder": self.coder, "eos": self.eos, "has_template": self.has_template}
        if self.has_template:
            state["template"] = self.template
        return state | {"tokenizer": None}
