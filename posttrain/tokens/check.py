"""What stops a run before it trains: a tokenizer that cannot work, tokens that teach nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from posttrain.errors import DataError, ModelError
from posttrain.tokens.template import template_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Counts = Mapping[str, Mapping[str, int]]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, needs_template: bool = True) -> None:
    """Refuse a tokenizer that would train a model which cannot stop, or that has no template.

    Raises:
        ModelError: no EOS token, no offsets (slow tokenizer), or no chat template.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no EOS token, so no answer could "
            "learn to end; set `eos_token` in its tokenizer_config.json"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} is a slow one; "
            "posttrain needs character offsets"
        )
    if needs_template and not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; "
            "set `chat_template:` in the recipe "
            f"(known: {', '.join(template_names())}, or a .jinja file)"
        )


def check_same_words(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """Refuse two tokenizers under which the same ids are other texts; one may have more tokens.

    Raises:
        ModelError: naming a token that differs.
    """
    ids, others = one.get_vocab(), other.get_vocab()
    differs = next((t for t, i in ids.items() if t in others and others[t] != i), None)
    small, large = sorted((ids, others), key=len)
    if differs is None:
        # not one of the text's tokens may be missing; added ones (pad, turns) may
        added = set(one.get_added_vocab()) | set(other.get_added_vocab())
        differs = next((t for t in small if t not in large and t not in added), None)
    if differs is not None:
        raise ModelError(
            f"its tokenizer is another one than {one.name_or_path!r} has (the token {differs!r} is"
            f" {ids.get(differs, 'missing')} there and {others.get(differs, 'missing')} here), so"
            " log-probs of the same ids cannot be compared; give a model with the same tokenizer"
        )


def check_trained(rows: int, counts: Counts, dropped: Counts, kind: str) -> None:
    """Stop a run that would learn nothing, or never learn to stop.

    Args:
        rows: rows that are left, of all sources.
        counts: per source what `TokenBatch.counts` has.
        dropped: per source: reason -> rows.

    Raises:
        DataError: nothing is left, a source has no trained token, or no end of an answer is
            trained.
    """
    if not rows:
        reasons: Counter[str] = Counter()
        for of_source in dropped.values():
            reasons.update(of_source)
        raise DataError(
            f"no row is left to train on ({most_common(reasons) or 'the sources are empty'})"
        )
    if kind == "problem":
        return
    for source, count in counts.items():
        if not count.get("trained_tokens"):
            why = most_common(dropped.get(source, {}))
            raise DataError(f"source {source!r}: no token is trained ({why})")
    each = 2 if kind == "preference" else 1  # answers of a row, any of which may end
    if all(count.get("without_eos", 0) >= each * count["rows"] for count in counts.values()):
        raise DataError(
            "EOS is not trained in any row, so the model would never learn to stop: the chat "
            "template must end each answer with the tokenizer's EOS or with a special token of "
            "its own, and max_length must leave room for it"
        )


def most_common(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{n} rows: {reason}" for reason, n in Counter(reasons).most_common(3))
