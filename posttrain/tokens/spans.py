"""Chat templates, and where the answers stand in the text that they render.

What is trained is found in the rendered text, not in token counts: an assistant turn's span runs
from where its generation prompt ends to the end of its EOS. A token is trained when it lies inside
a span, so the mask can be proven by decoding it, whatever the template or the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError, ModelError, nearest
from posttrain.formats import Message

IGNORE = -100


def template_names() -> list[str]:
    """Names of the chat templates that ship with posttrain."""
    folder = resources.files("posttrain") / "templates"
    return sorted(
        p.name.removesuffix(".jinja") for p in folder.iterdir() if p.name.endswith(".jinja")
    )


def load_template(name: str) -> str:
    """The text of a shipped chat template, or of a `.jinja` file.

    Raises:
        DataError: neither a known name nor an existing file.
    """
    if name in template_names():
        return (resources.files("posttrain") / "templates" / f"{name}.jinja").read_text(
            encoding="utf-8"
        )
    if name.endswith(".jinja") and Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    raise DataError(
        f"chat_template: {name!r} is neither a .jinja file nor a known template"
        f"{nearest(name, template_names())}"
    )


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


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation_prompt: bool = False
) -> str:
    """The template applied to messages, as text.

    Raises:
        DataError: the template refuses the messages (an unknown role, say).
    """
    turns: list[Any] = list(messages)
    try:
        return tokenizer.apply_chat_template(  # type: ignore[return-value]
            turns, tokenize=False, add_generation_prompt=generation_prompt
        )
    except Exception as error:  # jinja's own errors, raised by arbitrary templates
        raise DataError(f"the chat template refuses the conversation: {error}") from error


def answer_span(tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> tuple[int, int]:
    """Characters of an answer and its EOS: `before` ends with its header, `after` with its end.

    Raises:
        DataError: the template does not extend the text, so the answer cannot be located.
    """
    if not after.startswith(before):
        raise DataError(
            "the chat template rewrites earlier turns, so the answer cannot be located in the text"
        )
    eos = str(tokenizer.eos_token)
    end = after.rfind(eos)
    return len(before), end + len(eos) if end >= len(before) else len(after)


def conversation_spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and the characters that are trained: answers with their EOS."""
    text = render(tokenizer, messages)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:i], generation_prompt=True)
        after = text if i == len(messages) - 1 else render(tokenizer, messages[: i + 1])
        start, end = answer_span(tokenizer, before, after)
        if text[:end] != after[:end]:
            raise DataError("the chat template renders a turn differently once others follow it")
        spans.append((start, end))
    return text, spans


def token_ranges(offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Character ranges that tile the text.

    Byte-level tokenizers leave leading spaces out of their offsets; the space belongs to the token.
    The tokens that share one multi-byte character share its range.
    """
    ranges: list[tuple[int, int]] = []
    position = 0
    for start, end in offsets:
        if ranges and start < end <= position:
            ranges.append(ranges[-1])
            continue
        end = max(end, position)
        ranges.append((position, end))
        position = end
    return ranges


def mask(
    ids: Sequence[int], ranges: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """Labels: the token where its characters lie in a span, -100 elsewhere."""
    labels, which = [], 0
    for token, (start, end) in zip(ids, ranges, strict=True):
        while which < len(spans) and start >= spans[which][1]:
            which += 1
        inside = which < len(spans) and spans[which][0] <= start and end <= spans[which][1]
        labels.append(token if inside else IGNORE)
    return labels
