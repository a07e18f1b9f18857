"""Reads the arguments of constraints by name, so that a bad one is found before a run starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from posttrain.errors import VerifierError
from posttrain.verifiers.base import shown
from posttrain.verifiers.constraints.language import languages

Constraint = Callable[[str], bool]


def _count(value: Any) -> int:
    # Tables that hold nulls turn whole numbers into floats.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("must be a whole number")
    if value < 0:
        raise ValueError("must be 0 or more")
    return int(value)


def _position(value: Any) -> int:
    if _count(value) < 1:
        raise ValueError("must be 1 or more")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text that is not empty")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of texts that is not empty")
    return [_text(item) for item in value]


def _options(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.strip("()[] ").replace("/", ",").split(",")
    return [option.strip() for option in _texts(value)]


def _letter(value: Any) -> str:
    if len(_text(value).strip()) != 1:
        raise ValueError("must be one character")
    return value.strip()


def _language(value: Any) -> str:
    known = languages()
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError(f"must be one of {', '.join(sorted(known))}")
    return value.lower()


def _choice(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(map(repr, allowed))}")
        return value

    return read


def _percentage(value: Any) -> int:
    if _count(value) > 100:
        raise ValueError("must be at most 100")
    return int(value)


_RELATION = _choice("at least", "less than")

READERS: dict[str, Callable[[Any], Any]] = {
    "N": _count,
    "capital_frequency": _count,
    "capital_relation": _RELATION,
    "end_phrase": _text,
    "first_word": _text,
    "forbidden_words": _texts,
    "frequency": _count,
    "i": _position,
    "keyword": _text,
    "keyword_list": _texts,
    "keywords": _texts,
    "language": _language,
    "let_frequency": _count,
    "let_relation": _RELATION,
    "letter": _letter,
    "nth_paragraph": _position,
    "num_bullets": _count,
    "num_highlights": _count,
    "num_paragraphs": _count,
    "num_placeholders": _count,
    "num_sections": _count,
    "num_sentences": _count,
    "num_words": _count,
    "options": _options,
    "original_prompt": _text,
    "postscript_marker": _text,
    "prompt_to_repeat": _text,
    "quantifier": _choice("at least", "around", "at most"),
    "relation": _RELATION,
    "section_spliter": _text,
    "section_splitter": _text,
    "word": _text,
}


# IFBench's, where one name means another thing.
OTHER_READERS = READERS | {
    "keyword1": _text,
    "keyword2": _text,
    "keyword3": _text,
    "keyword4": _text,
    "keyword5": _text,
    "m": _position,
    "max_words": _count,
    "min_words": _count,
    "n": _position,
    "n_end": _count,
    "n_start": _count,
    "options": _text,
    "percentage": _percentage,
    "reference_text": _text,
    "sep": _text,
    "small_n": _count,
}


def bind(
    check: Callable[..., bool],
    arguments: Mapping[str, Any],
    label: str,
    readers: Mapping[str, Callable[[Any], Any]] = READERS,
) -> Constraint:
    """Fix the arguments of a constraint; nulls, which pad the published tables, are dropped.

    Raises:
        VerifierError: an argument is missing, unknown, or not of its kind.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    parameters = list(inspect.signature(check).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    if set(given) != set(needed):
        takes = ", ".join(needed) or "no arguments"
        raise VerifierError(f"{label} takes {takes}; got {', '.join(sorted(given)) or 'none'}")
    bound = {}
    for name in needed:
        try:
            bound[name] = readers[name](given[name])
        except (ValueError, OverflowError) as error:
            raise VerifierError(f"{label}: `{name}` {error}, got {shown(given[name])}") from None
    return partial(check, **bound)
