"""Tokenised rows for people: the text that the model sees, with its trained tokens marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from posttrain.tokens.batch import IGNORE

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

Piece = tuple[str, bool]  # text, and whether its tokens are trained


def pieces(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Iterator[Piece]:
    """A tokenised row, cut where training begins and ends."""
    if "input_ids" in row:
        both = zip(row["input_ids"], row["labels"], strict=True)
        for trained, run in groupby(both, key=lambda pair: pair[1] != IGNORE):
            yield str(tokenizer.decode([token for token, _ in run])), trained
        return
    yield str(tokenizer.decode(row["prompt_ids"])), False
    if "chosen_ids" not in row:
        yield f"\n--- ground truth ({row['verifier']})\n{row['ground_truth']}", False
        return
    for side in ("chosen", "rejected"):
        yield f"\n--- {side}\n", False
        yield str(tokenizer.decode(row[f"{side}_ids"])), True


def show(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenised row as text, its trained tokens between ⟦ and ⟧."""
    return "".join(f"⟦{text}⟧" if trained else text for text, trained in pieces(row, tokenizer))


def show_rich(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, style: str = "green"
) -> Text:
    """The same for a terminal: trained tokens in colour, control characters made visible."""
    from rich.text import Text

    out = Text()
    for text, trained in pieces(row, tokenizer):
        out.append(visible(text), style if trained else "")
    return out


def visible(text: str) -> str:
    """Control characters as their pictures (␛ for escape), so that no row can drive the screen."""
    pictures = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    return text.translate(pictures | {0x7F: "␡"})
