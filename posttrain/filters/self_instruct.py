"""Self-Instruct's rules for instructions and their answers (arXiv:2212.10560; its code).

`rouge_novelty` is the other half. Not here, for they need a whole task and not one row: an input
with two different outputs drops the task, and answers cut off by their length are dropped.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from posttrain.filters.base import turns
from posttrain.formats import Row

# What a model that only reads and writes text cannot do.
_BEYOND_TEXT = re.compile(
    r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class SelfInstruct:
    """The instruction is the first user turn, the output the last assistant turn.

    Attributes:
        min_words: fewest words, between white space, of the instruction.
        max_words: most words of the instruction.
    """

    min_words: int = 4
    max_words: int = 150

    def __call__(self, row: Row) -> str | None:
        said: dict[str, list[str]] = {"user": [], "assistant": []}
        for turn in turns({**row, "rejected": None}):
            said.get(turn["role"], []).append(turn["content"].strip())
        if said["user"] and (fault := self._instruction(said["user"][0])):
            return fault
        if said["assistant"]:
            return self._output(said["assistant"][-1], said["user"])
        return None

    def _instruction(self, text: str) -> str | None:
        words = len(text.split())
        if words < self.min_words:
            return f"the instruction has fewer than {self.min_words} words"
        if words > self.max_words:
            return f"the instruction has more than {self.max_words} words"
        if _BEYOND_TEXT.search(text):
            return "the instruction asks for more than text"
        if text.startswith("Write a program"):
            return "the instruction asks for a program"  # the authors found them ambiguous
        if text[0] in string.punctuation or not text[0].isascii():
            return "the instruction starts with no ASCII letter or digit"
        return None

    def _output(self, text: str, asked: list[str]) -> str | None:
        if not text:
            return "the output is empty"
        if text in asked:
            return "the output repeats the input"
        return "the output ends in a colon" if text.endswith(":") else None
