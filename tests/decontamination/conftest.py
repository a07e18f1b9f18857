"""The rule written out word by word, and the public data that the facts were measured on."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def plain_words(text: str) -> list[str]:
    """One character at a time: lower case, `\\w` runs, unspaced scripts alone."""
    found: list[str] = []
    open_word = False
    for char in text:
        low = char.lower()
        char = low if len(low) == 1 else char
        alone = any(
            a <= char <= b
            for a, b in (
                ("\u0e00", "\u0eff"),  # Thai, Lao
                ("\u1000", "\u109f"),  # Burmese
                ("\u1780", "\u17ff"),  # Khmer
                ("\u3040", "\u30ff"),  # kana
                ("\u3400", "\u4dbf"),  # Han
                ("\u4e00", "\u9fff"),
                ("\uf900", "\ufaff"),
                ("\uff66", "\uff9d"),  # half-width kana
                ("\U00020000", "\U000323af"),
            )
        )
        word = bool(re.match(r"\w", char)) and not alone
        if alone or (word and not open_word):
            found.append(char)
        elif word:
            found[-1] += char
        open_word = word
    return found


def plain_matches(
    rows: Sequence[Sequence[str]], prompts: Sequence[str], n: int, threshold: float
) -> list[dict[int, float]]:
    """Every row against every prompt."""
    texts = [plain_words(prompt) for prompt in prompts]
    grams = [{tuple(t[i : i + n]) for i in range(len(t) - n + 1)} for t in texts]
    answer = []
    for row in rows:
        turns = [plain_words(turn) for turn in row]
        shared = {tuple(t[i : i + n]) for t in turns for i in range(len(t) - n + 1)}
        found: dict[int, float] = {}
        for doc, text in enumerate(texts):
            if 0 < len(text) < n:
                overlap = float(text in turns)
            else:
                hit: set[int] = set()
                if not shared.isdisjoint(grams[doc]):
                    for i in range(len(text) - n + 1):
                        if tuple(text[i : i + n]) in shared:
                            hit |= set(range(i, i + n))
                overlap = len(hit) / max(len(text), 1)
            if overlap > 0 and overlap >= threshold:
                found[doc] = overlap
        answer.append(found)
    return answer


@pytest.fixture
def plain() -> Callable[..., list[dict[int, float]]]:
    return plain_matches


@pytest.fixture
def by_letter() -> Callable[[str], list[str]]:
    return plain_words


@pytest.fixture
def data() -> Callable[[str], Path]:
    """A public data file by its name."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"needs the public data file {name} in {DATA}")
        return DATA / name

    return find


@pytest.fixture
def rows(data: Callable[[str], Path]) -> Callable[[str], list[dict[str, Any]]]:
    """The rows of a public data file."""

    def read(name: str) -> list[dict[str, Any]]:
        path = data(name)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    return read
